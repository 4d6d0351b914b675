#pragma once
// Selective recompute as one rule for costs and engine: which operators of a block run again in backward. What
// contracts a parameter, and fused attention, takes too long for what it frees; everything else is cheap. Called by
// worker/engine (lowering). Threads: pure. Source: docs/cost_model.md, C31.
#include <cstdint>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

/// Operators of `block` that run again, ascending, counted from the block's first: those whose results, or whose copies
/// of operands, backward needs and that are cheap, what these need in turn, and the views on the way. None of them
/// communicates. Empty where that frees nothing. `samples`: of a micro-batch on this rank.
[[nodiscard]] std::vector<int> selective_replay(const ModelGraph& graph, int block, std::int64_t samples);

}  // namespace coxswain::model
