#pragma once
// A plan that was found, looked at once more: its actions in virtual time, and why it is as it is. Called by the
// service. Threads: pure apart from reading files.
#include <optional>
#include <stop_token>

#include "common/json.h"
#include "common/result.h"
#include "launcher/rest/plan_request.h"

namespace coxswain::launcher {

/// JSON: {"step_seconds", "roles": [{"stage", "blocks": [[first, end]], "ranks", "device"}], "actions": [{"role",
/// "stream", "action", "kind", "micro_batch", "start_seconds", "transfer_start_seconds", "end_seconds"}]}, by role.
/// `request`: the body that the plan was found for. Errors: of the request and of the simulation.
[[nodiscard]] Result<std::string> plan_timeline(const Json& request, const Json& plan, const ServedFiles& files);

/// What `launch explain --format json` prints. `against`: another plan for the same job and cluster. Errors: of the
/// request and of planner::explain_plan; Cancelled once `stop` is requested.
[[nodiscard]] Result<Json> plan_explanation(const Json& request, const Json& plan, const std::optional<Json>& against,
                                            const ServedFiles& files, std::stop_token stop);

}  // namespace coxswain::launcher
