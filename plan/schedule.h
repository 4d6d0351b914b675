#pragma once
// The order in which a stage of a pipeline computes, and what the search must know of it without making the list: how
// much is in flight, how many chunks a stage may hold, which part of the model comes after which. Called by fill_roles,
// validate, memory and the planner. Threads: pure. Source: DESIGN 3.5; docs/plan.md, "Schedules".
#include <cstdint>
#include <vector>

#include "plan/plan.h"

namespace coxswain::plan {

/// Zero-bubble schedules: the backward comes as I (input gradient) and W (weight gradient) instead of B.
[[nodiscard]] bool splits_backward(ScheduleKind kind);

/// The pipeline part of one stage's list, in compute order: F and B (or I and W) with micro-batch only.
/// Requires: 0 <= stage < num_stages, num_micro_batches >= 1. Cost: O(micro-batches).
[[nodiscard]] std::vector<Action> make_schedule(ScheduleKind kind, int stage, int num_stages, int num_micro_batches);

/// Most micro-batches that a stage holds at once, from F to B, or to W where the backward is split: the peak of
/// make_schedule's list in closed form. GPipe m, 1F1B min(m, p - s), H1 min(m, p), H2 min(m, 2p - 1).
[[nodiscard]] int peak_in_flight(ScheduleKind kind, int stage, int num_stages, std::int64_t num_micro_batches);

}  // namespace coxswain::plan
