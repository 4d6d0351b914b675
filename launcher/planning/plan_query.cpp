#include "launcher/planning/plan_query.h"

#include "common/clock.h"

namespace coxswain::launcher {

Result<planner::PlanResult> answer_query(const PlanningInputs& inputs, const PlanQuery& query) {
  planner::Request request = inputs.make_request();
  if (query.cost != nullptr) request.cost = query.cost;
  request.objective = query.objective;
  request.max_step = query.max_step;
  request.max_cost_per_step = query.max_cost_per_step;
  request.max_candidates = query.max_candidates;
  request.top_k = query.top_k;
  request.threads = query.threads;
  request.running = query.running;
  request.stop = query.stop;
  request.capabilities = query.runnable ? planner::searched_capabilities(request.constraints) : plan::kPlannable;
  const TimePoint started = steady_clock().now();
  COX_TRY(planner::PlanResult result, planner::find_plan(request));
  result.search_seconds = std::chrono::duration<double>(steady_clock().now() - started).count();
  if (query.reasons)
    planner::add_reasons(request, result, request.running.has_value());  // a move was priced for this plan
  if (query.stop.stop_requested()) return planner::search_stopped();
  return result;
}

}  // namespace coxswain::launcher
