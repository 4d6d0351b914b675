#pragma once
// Attention of some query rows with some keys, tile by tile: no matrix is larger than a tile, and what one block of
// keys adds is merged with what others added (online softmax). Rows stand anywhere in the whole sequence: masks,
// causality and dropout go by positions in the whole. Products and softmax in float32. Called by ring_attention.cpp,
// once a block that the ring brings. Threads: as libtorch, over heads and tiles. Private to worker/engine. Source:
// Milakov and Gimelshein 2018 (arXiv 1805.02867), Dao et al. 2022 (arXiv 2205.14135).
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "worker/engine/dropout.h"
#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

/// Rows [first, first + size) of what is held here; `position`: of the first one in the whole sequence.
struct RowTile {
  std::int64_t first = 0, size = 0, position = 0;
};
/// Tiles of at most `largest` rows, none across two runs.
[[nodiscard]] std::vector<RowTile> make_tiles(const std::vector<Run>& runs, std::int64_t largest);
inline constexpr std::int64_t kQueryTile = 128, kKeyTile = 256;

/// What dropout in attention needs of the whole: an element's number is ((head, query), key), keys padded to whole
/// groups of words, as attention.h numbers them.
struct AttentionDropout {
  DropoutStream stream;  // threshold 0: none
  DropoutPlace place;    // of the query; rows_per_sample 0: no samples
  std::int64_t first_head = 0, num_heads = 0, num_queries = 0, num_keys = 0;
  [[nodiscard]] bool active() const { return stream.threshold > 0; }
};

/// What stays the same for every block of keys. Tensors are (batch, heads, rows, depth) with depth contiguous.
struct AttentionQueries {
  at::Tensor query;  // float32 or bfloat16
  at::Tensor mask;   // undefined, or (batch, heads, own rows, keys of the whole): bool, float32 or bfloat16
  std::vector<RowTile> tiles;
  bool is_causal = false;  // a query sees keys at its own position and before
  float scale = 1;
  AttentionDropout dropout;
};

/// Keys and values of one member; key heads divide the query's. float32.
struct KeyBlock {
  at::Tensor key, value;
  std::vector<RowTile> tiles;
};

/// What attention over some of the keys has found so far, by query row.
struct AttentionState {
  at::Tensor output;    // (batch, heads, rows, value depth), float32: values weighted by exp(score - largest)
  at::Tensor largest;   // (batch, heads, rows): greatest score; -inf at first
  at::Tensor log_sums;  // the sum of exp(score - largest); after finish_attention the log of the sum of exp(score)
};
/// Nothing seen yet. The output is stored as (batch, rows, heads, depth).
[[nodiscard]] AttentionState make_state(const AttentionQueries& queries, std::int64_t value_depth);
void attend(const AttentionQueries& queries, const KeyBlock& keys, AttentionState& state);
/// Divides by the sums. A row that saw no key becomes 0, and its log_sums +inf, so that backward gives it nothing.
void finish_attention(AttentionState& state);

/// What backward needs of the output, by query row.
struct OutputSide {
  at::Tensor gradient;  // of the output, depth contiguous
  at::Tensor log_sums;
  at::Tensor products;  // (batch, heads, rows): sum over depth of output x gradient
};
/// Adds what this block contributes. Gradients are float32, shaped like what they belong to, depth contiguous.
/// Threads: over batch and key heads.
void attend_backward(const AttentionQueries& queries, const KeyBlock& keys, const OutputSide& side,
                     const at::Tensor& query_gradient, const at::Tensor& key_gradient,
                     const at::Tensor& value_gradient);

}  // namespace coxswain::worker
