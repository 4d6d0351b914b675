#pragma once
// Attention whose sequence is split over a group: a member keeps its query rows, while keys and values of all members
// go around the ring, the next block on its way while this one is computed. No member holds more than two blocks of
// others, and no matrix of scores is larger than a tile. No tile is computed that causality or a mask hides, and under
// causality a block travels only as far as somebody sees it. Backward sends keys and values around again and with them
// the sums of their gradients, which end at their owner. In a group of one it is attention that keeps no probabilities.
// Called by op_call for coxswain::ring_attention. Threads: as libtorch. Private to worker/engine.
// Source: Liu et al. 2023 (arXiv 2310.01889); two runs a member: Brandon et al. 2023 (arXiv 2311.09431); DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "worker/engine/dropout.h"
#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

/// As aten::scaled_dot_product_attention, (batch, heads, own rows, depth) or without heads, float32 or bfloat16
/// (softmax and sums in float32).
struct RingAttentionArguments {
  at::Tensor query, key, value;
  at::Tensor mask;  // undefined, or broadcast to (batch, heads, own rows, keys of the whole): bool (true:
                    // visible) or added to the scores; no gradient
  std::vector<std::int64_t> runs;  // of the keys: first and size, member after member; queries of causal attention too
  bool is_causal = false;
  std::optional<double> scale;  // default 1 / sqrt(depth)
  bool enable_gqa = false;      // fewer key heads than query heads
  DropoutStream stream;         // threshold 0: no dropout; else queries have the runs of keys
  DropoutPlace place;           // of the query, samples on dim 0
  std::int64_t first_head = 0;  // of the query's heads in the whole, and their number there (0: all are here)
  std::int64_t num_heads = 0;
};

/// Own rows; a row that sees no key gives zeros. Differentiable: query, key, value. Every member of the group runs
/// backward. Errors: what does not fit, naming both sides; CommunicationError.
[[nodiscard]] at::Tensor ring_attention(const RingAttentionArguments& arguments, const ParallelLink& link);

}  // namespace coxswain::worker
