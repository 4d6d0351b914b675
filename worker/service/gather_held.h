#pragma once
// State that ranks held in memory when their generation ended, given to the ranks of the next one: each keeps its own
// and gets what it lacks from ranks that hold it. Nothing passes a disk. Called by train_mode. Threads: one.
// Source: docs/checkpoint.md.
#include <vector>

#include "checkpoint/reader.h"
#include "collective/communicator.h"
#include "common/clock.h"
#include "worker/engine/engine.h"

namespace coxswain::worker {

struct GatheredState {
  std::vector<checkpoint::PieceView> pieces;    // of this rank's own state, and of `fetched`
  std::vector<checkpoint::PieceState> fetched;  // from other ranks
};

/// A collective call. `own`: null where this rank holds nothing of that step; it outlives what is returned. `needed`:
/// the pieces that this rank needs. Errors: of the collective. What nobody holds is not there: Reader::read says so.
[[nodiscard]] Result<GatheredState> gather_held(const HeldState* own, const std::vector<checkpoint::Piece>& needed,
                                                collective::Communicator& world, Deadline deadline);

}  // namespace coxswain::worker
