#pragma once
// The body of POST /v1/plans as what the planner takes. Nothing outside of the folders that a request may name is ever
// opened. Called by plan_searches. Threads: pure apart from reading files. Source: INTERFACE section 5.
#include <memory>

#include "common/json.h"
#include "common/result.h"
#include "launcher/planning/plan_query.h"
#include "launcher/rest/served_job.h"

namespace coxswain::launcher {

struct PlanRequest {
  std::unique_ptr<PlanningInputs> inputs;  // heap: its members refer to each other
  PlanQuery query;
};

inline constexpr std::int64_t kMostCandidates = 1000000;

/// {"job", "cluster", "running_plan"?, "options"?: {"constrain", "prices", "objective", "max_step_seconds",
/// "max_cost_per_step", "max_candidates" (at most kMostCandidates), "top", "reasons", "runnable", "profile",
/// "horizon_seconds", "running_cluster"}}. Errors: all problems of the form at once, then those of the job, the cluster
/// and the rest, each with its path in `body`; PermissionDenied for a file that may not be named.
[[nodiscard]] Result<PlanRequest> read_plan_request(const Json& body, const ServedFiles& files);

}  // namespace coxswain::launcher
