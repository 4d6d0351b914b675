#pragma once
// How a block's work splits over a tensor axis, read off its operators: contractions of a parameter alternate between
// split by columns and split by rows (Shoeybi et al. 2019), what lies between two such runs is split along the sequence
// (Korthikanti et al. 2022). So every operator does 1/t of its work, and each run costs a gather and a reduce-scatter.
// Called by cost_model/ and planner/. Threads: pure. Source: docs/cost_model.md, C25.
#include <cstdint>

#include "model/model_graph.h"

namespace coxswain::model {

struct BlockShard {
  std::int64_t num_heads = 0;  // of its attention: a degree divides it; 0: no attention, any degree
  int num_runs = 0;            // each is entered by an all_gather and left by a reduce_scatter
};
[[nodiscard]] BlockShard find_block_shard(const ModelGraph& graph, int block);

/// True where a tensor axis splits the parameter's elements: weights, not the vectors of norms and biases.
[[nodiscard]] inline bool is_sharded(const Parameter& parameter) { return parameter.dims.size() >= 2; }

}  // namespace coxswain::model
