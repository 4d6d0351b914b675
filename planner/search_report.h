#pragma once
// Private to planner/: one search, and the step from what it found to a PlanResult. Everything that explains, compares
// or asks "what if" runs searches through search_once and never sees the search itself. Threads: as find_plan.
#include <vector>

#include "planner/outcome.h"
#include "planner/search.h"

namespace coxswain::planner {

/// What a search ends with.
struct SearchOutcome {
  std::vector<Simulated> simulated;  // feasible ones, best first
  std::vector<Candidate> waiting;    // not simulated, ascending in bound
  Cost lower_bound = kNoCost;
  PipelineProblem::Misfit misfit;
  std::int64_t costed = 0;
};

/// Plan, estimate, bound, what binds, runners-up and what was rejected; no sensitivities.
/// Errors: as find_plan, where nothing was simulated.
[[nodiscard]] Result<PlanResult> report_search(const SearchSpace& space, const SearchOutcome& outcome);

/// Messages by which conflicts.cpp knows errors that name no constraint yet.
inline constexpr const char* kNothingMeets = "no plan meets the constraints";
inline constexpr const char* kBeyondLimits = "no plan keeps the limits";

/// The joint search for the least step, without what find_plan adds. Errors: as find_plan.
[[nodiscard]] Result<PlanResult> search_once(const Request& request);

}  // namespace coxswain::planner
