#pragma once
// One dry run: what is asked of a plan beside its job and cluster, and the answer. Called by `launch plan` and by
// POST /v1/plans, so that both give the same bytes. Threads: pure; the search takes up to `threads` of its own.
#include <cstdint>
#include <optional>
#include <stop_token>

#include "launcher/planning/planning_inputs.h"

namespace coxswain::launcher {

struct PlanQuery {
  planner::Objective objective = planner::Objective::Time;
  std::optional<Seconds> max_step;
  std::optional<cluster::Usd> max_cost_per_step;
  std::int64_t max_candidates = 200000;
  int top_k = 5;
  int threads = 1;
  bool reasons = true;    // why not others, what changes would buy; asking that may find a better plan
  bool runnable = false;  // only what `launch train` of this version executes
  std::optional<planner::RunningPlan> running = {};
  const cost_model::CostModel* cost = nullptr;  // instead of that of the inputs
  std::stop_token stop = {};
};
/// The best plan with its reasons. Errors: of planner::find_plan; Cancelled once `stop` is requested.
[[nodiscard]] Result<planner::PlanResult> answer_query(const PlanningInputs& inputs, const PlanQuery& query);

}  // namespace coxswain::launcher
