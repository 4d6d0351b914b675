#pragma once
// How a block's work splits over a mesh, read off its operators. Tensor: contractions of a parameter alternate between
// split by columns and split by rows (Shoeybi et al. 2019), what lies between two such runs is split along the sequence
// (Korthikanti et al. 2022). So every operator does 1/t of its work, and each run costs a gather and a reduce-scatter.
// Context: all but attention works on its part of the sequence; attention passes keys and values around a ring. Expert:
// the tables that hold all experts are split by expert, tokens travel to them.
// Called by cost_model/ and planner/. Threads: pure. Source: docs/cost_model.md, C25, C29, C32.
#include <cstdint>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::model {

struct BlockShard {
  std::int64_t num_heads = 0;  // of its attention: a degree divides it; 0: no attention, any degree
  int num_runs = 0;            // each is entered by an all_gather and left by a reduce_scatter
};
[[nodiscard]] BlockShard find_block_shard(const ModelGraph& graph, int block);

/// Attention of a block: one fused operator, or those from the scores to the mixed values.
struct BlockAttention {
  std::vector<int> ops;            // ascending, counted from the block's first
  std::vector<ValueId> passed;     // keys and values, before their heads are repeated: what a ring passes on (C29)
  std::int64_t num_key_heads = 0;  // greatest that divides those of all keys; 0: unknown
  std::int64_t length = 0;         // of the sequence, greatest divisor of all; 0: no attention
  [[nodiscard]] bool contains(int op) const;
};
[[nodiscard]] BlockAttention find_attention(const ModelGraph& graph, int block);

/// Experts of a block: products with rows of tables (experts, out, in) that a router chooses.
struct BlockExperts {
  std::int64_t count = 0;        // 0: none
  std::int64_t chosen = 0;       // of each token
  std::vector<ValueId> tables;   // parameters
  ValueId dispatched = -1;       // (tokens x chosen, width): what travels to the experts, and as much comes back (C32)
  int first_op = 0, end_op = 0;  // from the first gather of a table to the last product, counted from the block's first
};
[[nodiscard]] BlockExperts find_experts(const ModelGraph& graph, int block);

/// True where a tensor axis splits the parameter's elements: weights, not the vectors of norms and biases.
[[nodiscard]] inline bool is_sharded(const Parameter& parameter) { return parameter.dims.size() >= 2; }

}  // namespace coxswain::model
