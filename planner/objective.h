#pragma once
// From "least time" to "least money" and limits of both: one search for time on the whole cluster, more on parts of it,
// and the best simulated plan that keeps the limits. Private to planner/; called by find_plan. Threads: as find_plan.
// Source: docs/cost_model.md, C60, C62.
#include "planner/planner.h"

namespace coxswain::planner {

/// Errors: as search_once; ResourceExhausted where plans fit but none keeps the limits; InvalidArgument where prices
/// are needed and missing.
[[nodiscard]] Result<PlanResult> search_objective(const Request& request);

/// Fills `classes`, and the devices that stay unused into `summary`.
void describe_devices(const Request& request, PlanResult& result);

/// "$0.0123" with as many digits as it takes.
[[nodiscard]] std::string usd_text(cluster::Usd usd);

}  // namespace coxswain::planner
