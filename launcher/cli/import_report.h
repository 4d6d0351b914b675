#pragma once
// What `launch plan --import` prints: another planner's problem, answered by our search under that planner's own cost
// function, for people or as JSON. Called by command_import. Threads: pure.
#include <string>

#include "common/json.h"
#include "planner/problems/contest.h"

namespace coxswain::launcher {

/// {"format", "answer" (as the planner's contest documents it), "score", "unit", "step_seconds",
/// "lower_bound_step_seconds" (null where the family knows none), "notes", "search": {"seconds", "labels"}}; the caller
/// adds "dividing".
[[nodiscard]] Json import_json(const std::string& format, const planner::ContestAnswer& answer, double search_seconds);

/// A table of the plan's stages, what it takes, the bound, the notes. Requires: an answer of that format.
[[nodiscard]] std::string import_table(const std::string& format, const planner::ContestAnswer& answer,
                                       double search_seconds);

}  // namespace coxswain::launcher
