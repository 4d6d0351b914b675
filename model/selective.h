#pragma once
// Selective recompute as one rule for costs and engine: which operators of a block run again in backward. Data: the
// column `flop` of the operators' table (model/op_rules.h). What contracts a parameter, and fused attention, takes too
// long for what it frees; everything else is cheap. Called by worker/engine (lowering). Threads: pure. Source:
// docs/cost_model.md, C31.
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

/// Operators of `block` that run again, ascending, counted from the block's first: those whose results, or whose copies
/// of operands, backward needs and that are cheap, what these need in turn, and the views on the way. Empty where that
/// frees nothing.
[[nodiscard]] std::vector<int> selective_replay(const ModelGraph& graph, int block);

}  // namespace coxswain::model
