#pragma once
// A plan whose order of computing the user gives (a schedule file of PyTorch's pipelining): devices, replicas and cuts
// come from a search for the nearest schedule of ours with as many stages and micro-batches, the order from the file.
// Called by find_plan. Threads: as find_plan. Source: docs/plan.md, "Schedule CSV".
#include "planner/replan.h"

namespace coxswain::planner {

/// Requires: request.constraints.order. Errors: InvalidArgument where the file's stages or micro-batches contradict the
/// batch, the model's blocks or other constraints, and where its lists deadlock; ResourceExhausted where the plan does
/// not fit; those of `find`.
[[nodiscard]] Result<PlanResult> find_with_order(const Request& request, const FindPlan& find);

}  // namespace coxswain::planner
