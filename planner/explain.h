#pragma once
// A found or given plan in words and tables: where time and memory go, what binds, what one change would buy, why not
// another plan. Called by `launch plan` and `launch explain`. Threads: pure.
#include <optional>
#include <string>
#include <vector>

#include "planner/planner.h"

namespace coxswain::planner {

/// The whole result as a table for people.
[[nodiscard]] std::string explain(const PlanResult& result);

/// One part of the step in two plans.
struct PartDifference {
  std::string part;
  Seconds ours{0}, other{0};
};

/// Why not the other plan.
struct Against {
  plan::Plan plan;
  std::string summary;
  std::string verdict;               // "dp1 pp2 ... is 12.3 % slower, mostly by bubble (1.20 ms -> 3.40 ms)"
  std::vector<std::string> reasons;  // broken rules; what is missing where and what would fit; differences of layout
  std::optional<plan::Estimate> estimate;   // none for a plan that breaks a rule
  std::vector<PartDifference> differences;  // by how much they tell the plans apart, largest first
};

struct PlanExplanation {
  PlanResult result;               // of the given plan: estimate, bound, reasons by family, sensitivities
  std::optional<RunnerUp> better;  // found by a search for the same request, where that is quick
  std::optional<Against> against;
};
/// Simulates `plan` and, if given and valid, `against`. On small clusters it searches as well: lower bound, gap, a
/// better plan if there is one, reasons by family. Requires: `plan` valid for the cost model's graph and cluster.
[[nodiscard]] Result<PlanExplanation> explain_plan(const Request& request, const plan::Plan& plan,
                                                   const plan::Plan* against = nullptr);
[[nodiscard]] std::string to_text(const PlanExplanation& explanation);
[[nodiscard]] Json to_json(const PlanExplanation& explanation);

/// Why not `other`, beside a plan that was simulated to `ours`.
[[nodiscard]] Against compare_with(const cost_model::CostModel& cost, const plan::Plan& plan,
                                   const plan::Estimate& ours, const plan::Plan& other);

}  // namespace coxswain::planner
