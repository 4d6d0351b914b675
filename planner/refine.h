#pragma once
// Hill climbing in the simulator around the best candidates: what the bounds of the search cannot tell apart (a cut one
// block over, a sample from one replica to another, devices of two stages exchanged, the other schedule).
// Called by find_plan. Threads: pure. Deterministic: neighbours are tried in a fixed order.
#include <functional>
#include <optional>

#include "planner/search.h"

namespace coxswain::planner {

/// Recompute and memory of a candidate whose spans or samples were changed: false when it no longer fits.
[[nodiscard]] bool refit(const SearchSpace& space, Candidate& candidate);

/// Candidates one change away from `candidate` that the constraints allow and memory holds. With chunks only where
/// blocks stand changes, and memory is not looked at.
[[nodiscard]] std::vector<Candidate> neighbours(const SearchSpace& space, const Candidate& candidate);

/// `candidate` under a schedule whose stages hold `num_chunks` runs of blocks each: as many blocks on each stage as
/// before, in equal runs, but for `moved` blocks of the first that the last has instead. Nothing where a stage has
/// fewer blocks. Each block recomputes as the one in its place did; memory is not looked at (refit_chunks).
[[nodiscard]] std::optional<Candidate> with_chunks(const Candidate& candidate, plan::ScheduleKind schedule,
                                                   int num_chunks, int moved = 0);
/// `candidate`, of several chunks a stage, with just the recompute that it needs by its own list on each device and its
/// host. Nothing where no recompute does. What the user says of recompute stays.
[[nodiscard]] std::optional<Candidate> refit_chunks(const SearchSpace& space, const Candidate& candidate);

/// Follows improvements from `start` (which takes `step`) until no neighbour is better or `max_simulations` are used
/// up. `simulate_step` gives a candidate's step, or nothing when it cannot run.
void climb(const SearchSpace& space, const Candidate& start, Cost step, int max_simulations,
           const std::function<std::optional<Cost>(const Candidate&)>& simulate_step);

}  // namespace coxswain::planner
