#pragma once
// Attention with dropout, lowered to two matmuls around one fused pass, so that its mask is ours (plan-independent).
// Keeps query, key, value and one matrix of probabilities per head; signs hold the mask. Without dropout libtorch's own
// is used. Called by op_call. Threads: as libtorch. Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <optional>

#include "worker/engine/dropout.h"

namespace coxswain::worker {

/// As aten::scaled_dot_product_attention: [..., length, head_dim], leading dims in sample-major order.
struct AttentionArguments {
  at::Tensor query, key, value;
  at::Tensor mask;  // undefined, bool (true: visible) or added to the scores; no gradient
  bool is_causal = false;
  std::optional<double> scale;  // default 1 / sqrt(head_dim)
  DropoutStream stream;
  DropoutPlace place;  // of the query
};
/// Differentiable. Requires: float32, sample dim 0 or none. Fewer key heads than query heads are repeated.
[[nodiscard]] at::Tensor dropout_attention(const AttentionArguments& arguments);

}  // namespace coxswain::worker
