#pragma once
// Branch and bound over everything that a small space holds: every split of the samples, state and recompute of every
// stage, best bound first (C22), each whole plan in the simulator. What is left out is no better: its bound is not
// below the best step, or another plan has the same streams and no longer actions. Called by find_plan. Threads: one.
#include <functional>
#include <optional>
#include <vector>

#include "planner/search.h"

namespace coxswain::planner {

struct ProofLimits {
  std::int64_t labels = 0;
  std::int64_t actions = 0;  // of simulated plans
  /// Choices of a stage whose actions take no less than with another one are left out on CPUs too: fewer plans, of
  /// which the best is found sooner, and no bound.
  bool only_find = false;
};
/// True where a longer action may shorten the step (C19): a CPU copies with the core that it computes with, so that a
/// copy may move to where nothing runs.
[[nodiscard]] bool may_gain_from_waiting(const SearchSpace& space);
struct Proof {
  Cost lower_bound = kNoCost;  // no plan steps faster; kNoCost: there is none
  bool complete = false;
  std::int64_t labels = 0, simulated = 0;
};
/// `best`: of a plan that is known, kNoCost: of none. `simulate` gives a candidate's step, or nothing when it cannot
/// run.
[[nodiscard]] Proof prove(const SearchSpace& space, const std::vector<Combination>& combinations, Cost best,
                          const ProofLimits& limits,
                          const std::function<std::optional<Cost>(const Candidate&)>& simulate);

}  // namespace coxswain::planner
