#pragma once
// Private to plan/: moves along the critical path of an order. A step that waits for the one before it on its device
// may go before it, or that one later; a weight step may go to a later gap. A move that is not much worse is taken too,
// less and less so (threshold accepting). Deterministic: its own random numbers, a budget in moves. Threads: pure.
// Source: Dueck and Scheuer, "Threshold accepting", J. Comp. Phys. 90, 1990.
#include <cstdint>

#include "plan/zero_bubble_pipeline.h"

namespace coxswain::plan {

struct ImproveOptions {
  std::int64_t max_moves = 0;
  Ticks first_threshold = 0;  // by which a move may lengthen the span at first; none at the end
  Ticks good_enough = 0;      // ends the search
};

/// Changes `lists` into the best order seen; returns its longest span. Adds the moves that were timed to `num_moves`.
/// Requires: lists that do not deadlock. Cost: O(moves x steps).
Ticks improve_steps(const ZeroBubblePipeline& pipeline, const ImproveOptions& options, StepLists& lists,
                    std::int64_t& num_moves);

}  // namespace coxswain::plan
