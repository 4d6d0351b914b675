#pragma once
// The next plan where one is running: what the search finds and what repairs of the running plan give, each with the
// price of the move to it, ranked by the work that is done over the horizon. Called by find_plan. Threads: as
// find_plan. Source: docs/cost_model.md, C76, C77; docs/replanning.md.
#include <functional>
#include <optional>

#include "planner/planner.h"

namespace coxswain::planner {

/// C76: seconds a step over the horizon, the move included. Nothing where the move leaves no time.
[[nodiscard]] std::optional<Seconds> effective_step(Seconds step, Seconds move, Seconds horizon);

/// C77: the horizon from which on `move` to a plan of `step` does more than staying at `running_step`. Nothing: never.
[[nodiscard]] std::optional<Seconds> pays_after(Seconds step, Seconds move, Seconds running_step);

/// A search without a running plan.
using FindPlan = std::function<Result<PlanResult>(const Request&)>;

/// Requires: request.running. Devices of found plans are exchanged for equal ones that hold more of what they need
/// (assign_devices). Which plans are compared does not depend on the horizon, so a longer one never gives a plan of a
/// longer step. Errors: InvalidArgument for a running plan of another model or with devices that the map lacks, and for
/// a horizon that is no positive number; those of `find` where no repair can run either.
[[nodiscard]] Result<PlanResult> replan(const Request& request, const FindPlan& find);

/// "moving takes 12.3 s (1.50 GiB between nodes) and pays after 4 min 10 s; ..." Ends in a newline.
[[nodiscard]] std::string to_text(const Move& move);
[[nodiscard]] Json to_json(const Move& move);
/// "350 ms", "12.3 s", "4 min 10 s", "3 h 2 min", "2 d 5 h".
[[nodiscard]] std::string duration_text(Seconds seconds);

}  // namespace coxswain::planner
