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

struct PlanExplanation {
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary, binding_constraint;
  std::vector<Sensitivity> sensitivities;
  std::optional<RunnerUp> against;
  std::vector<PartDifference>
      differences;      // by how much they tell the plans apart, largest first; empty without `against`
  std::string verdict;  // "... is 12.3 % slower, mostly by bubble (+0.31 s)"; empty without `against`
};
/// Simulates `plan` and, if given, `against`. Requires: both valid for the cost model's graph and cluster.
[[nodiscard]] Result<PlanExplanation> explain_plan(const cost_model::CostModel& cost, const plan::Plan& plan,
                                                   const plan::Plan* against = nullptr);
[[nodiscard]] std::string to_text(const PlanExplanation& explanation);
[[nodiscard]] Json to_json(const PlanExplanation& explanation);

}  // namespace coxswain::planner
