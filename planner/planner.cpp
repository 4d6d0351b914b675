// The entry: a search for the objective, and where it finds nothing the constraints that stand in the way.
#include "planner/planner.h"

#include "planner/conflicts.h"
#include "planner/given_order.h"
#include "planner/objective.h"
#include "planner/replan.h"

namespace coxswain::planner {

void describe_devices(const Request& request, PlanResult& result) {
  result.classes = class_facts(request.cost->resources(), result.plan, result.estimate);
  result.summary = summarize(result.plan);
  std::string unused;
  for (const ClassFacts& facts : result.classes) {
    if (facts.used < facts.there)
      unused += (unused.empty() ? "" : ", ") + std::to_string(facts.there - facts.used) + " x " + facts.device;
  }
  if (unused.empty()) return;
  result.summary += "; unused: " + unused;
  result.summary +=
      request.objective == Objective::Cost ? " (would cost more than they save)" : " (would not make the step shorter)";
}

Result<PlanResult> find_plan(const Request& request) {
  if (request.running) {
    Result<PlanResult> moved = replan(request, find_plan);
    if (moved) moved->classes = class_facts(request.cost->resources(), moved->plan, moved->estimate);
    return moved;
  }
  if (request.constraints.order) {
    Result<PlanResult> ordered = find_with_order(request, find_plan);
    if (ordered) describe_devices(request, *ordered);
    return ordered;
  }
  Result<PlanResult> result = search_objective(request);
  if (!result && request.explain_failure) return explain_conflict(request, result.error());
  if (result) describe_devices(request, *result);
  return result;
}

}  // namespace coxswain::planner
