#pragma once
// The order in which a stage of a pipeline computes, and what the search must know of it without making the list: how
// much is in flight, how many chunks a stage may hold, which chunk comes after which. Called by fill_roles, validate,
// memory and the planner. Threads: pure. Source: DESIGN 3.5; docs/plan.md, "Schedules"; docs/adr/0006.
#include <cstdint>
#include <set>
#include <vector>

#include "plan/plan.h"

namespace coxswain::plan {

/// Whether the order is the user's own: it stands in the plan's roles and nowhere else.
[[nodiscard]] bool is_custom(ScheduleKind kind);
/// Whether two chunks go down the stages and back up: zbv and custom_v.
[[nodiscard]] bool is_v_shaped(ScheduleKind kind);
/// Zero-bubble schedules: the backward comes as I (input gradient) and W (weight gradient) instead of B.
[[nodiscard]] bool splits_backward(ScheduleKind kind);
/// Interleaved, zbv and custom ones: a stage may hold several chunks.
[[nodiscard]] bool has_chunks(ScheduleKind kind);

/// Chunk counts that are worth a look for `num_stages` stages that share `num_blocks` blocks, ascending: {1} without
/// chunks; 2 for zbv; 2, 3, ... at most `most` for interleaved, which the literature asks to divide the blocks evenly
/// (not needed here). Empty: no such schedule for these numbers (one stage, or fewer blocks than chunks).
[[nodiscard]] std::vector<int> chunk_choices(ScheduleKind kind, int num_stages, int num_blocks, int most = 8);

/// The pipeline part of one stage's list, in compute order: F and B (or I and W) with micro-batch and chunk only.
/// Requires: a kind that is not custom; 0 <= stage < num_stages, num_micro_batches >= 1; num_chunks 1 without chunks, 2
/// for zbv, >= 2 for interleaved. Any number of micro-batches has an order; interleaved has no bubble inside where
/// stages divide it. Cost: O(micro-batches x chunks).
[[nodiscard]] std::vector<Action> make_schedule(ScheduleKind kind, int stage, int num_stages, int num_micro_batches,
                                                int num_chunks = 1);

/// Most micro-batches that a stage holds at once, counted once per chunk, from F to B, or to W where the backward is
/// split: the peak of make_schedule's list in closed form (docs/plan.md, "Schedules"). One of them takes the kept bytes
/// of one chunk, so with equal chunks the stage's kept bytes are this / num_chunks micro-batches of the whole stage.
[[nodiscard]] int peak_in_flight(ScheduleKind kind, int stage, int num_stages, std::int64_t num_micro_batches,
                                 int num_chunks = 1);

/// Of those, most that wait for W after their I at once: with recompute they hold what was recomputed, until W. An
/// upper bound, exact for H1 and H2 (s + 1 and 2s + 1); 0 where the backward is whole.
[[nodiscard]] int peak_weights_owed(ScheduleKind kind, int stage, std::int64_t num_micro_batches);

/// ADR 0013: of `chunk`, which nothing comes before, the micro-batches whose W is the next compute action after their
/// I, of any list. Nobody waits for such an I: it does nothing, and W is the whole backward of its blocks.
[[nodiscard]] std::set<int> find_whole_backwards(const std::vector<Action>& list, int chunk);

/// Receive buffers that an interleaved schedule's edge from the last stage to stage 0 needs beyond receive_credits: by
/// as many micro-batches as a round exceeds the stages, stage 0 comes later to the next chunk. 0 where stages divide
/// the micro-batches, and for other schedules.
[[nodiscard]] int extra_credits(ScheduleKind kind, int num_stages, std::int64_t num_micro_batches);

/// A *part* is a chunk counted in model order over the whole pipeline. Interleaved: chunk c of the last stage is
/// followed by chunk c + 1 of stage 0. zbv: chunk 0 goes down the stages, chunk 1 back up.
struct PartPlace {
  int stage = 0, chunk = 0;
  friend bool operator==(const PartPlace&, const PartPlace&) = default;
};
[[nodiscard]] int part_of(ScheduleKind kind, int stage, int num_stages, int chunk);
[[nodiscard]] PartPlace place_of_part(ScheduleKind kind, int part, int num_stages);

}  // namespace coxswain::plan
