#pragma once
// The tables behind op_cost.h: one line per ATen operator, one file per family. Private to this folder.
// What `saves` says is what PyTorch's derivatives keep (torch 2.13, tools/autograd/derivatives.yaml), except where our
// engine lowers differently: dropout and attention with dropout. Proved in tests/model against saved_tensors_hooks.
// Threads: constant data. Source: docs/cost_model.md, C1-C3.
#include <array>
#include <span>
#include <string_view>

#include "model/op_cost.h"
#include "model/op_saves.h"

namespace coxswain::model {

/// How forward FLOPs follow from shapes (C1). Everything else counts 0: it is bound by bytes.
enum class FlopRule { None, Contraction, Convolution, Attention };

/// How an output's storage and strides follow from the first input (C3).
enum class Layout {
  Dense,      // new storage, contiguous
  Pointwise,  // new storage, dims ordered as in the first input of the same shape
  Alias,      // the same tensor
  Transpose,  // dim0, dim1
  Permute,    // dims
  Reverse,    // t, mT, numpy_T: the last two dims swapped
  Expand,     // stride 0 where repeated
  Slice,      // step
  Select,     // one dim less
  Split,      // several pieces
  Unbind,     // several pieces, one dim less
  Unsqueeze,
  Squeeze,
  View,        // other dims over the same elements
  Reshape,     // View where the strides allow, else a contiguous copy
  Contiguous,  // Alias of a contiguous tensor, else a copy
  Convert,     // Alias when dtype is unchanged, else Pointwise
  Dropout,     // Alias when it does nothing, else Pointwise
  Attention,   // (batch, heads, length, depth) stored as (batch, length, heads, depth)
};

/// Saved bytes that are no graph value (C3).
enum class Hidden {
  None,
  RowStatistics2,      // mean and reciprocal deviation per normalised row, float32
  GroupStatistics2,    // per sample and group
  ChannelStatistics2,  // per channel
  Attention,           // log-sum-exp, or with dropout the probabilities and copies of query, key and value
  LogSoftmax,          // cross_entropy: the log-softmax inside, and the scalar weight
  LossWeight,          // nll_loss: the scalar weight
  RowStatistic,        // a float32 a row: the cross entropy over split classes
  RmsNorm,             // reciprocal deviation per row; with a weight also the normalised input
  OutputIndices,       // int64 per output element
};

struct OpRule {
  std::string_view target;  // without overload: every overload
  OpClass op_class = OpClass::Other;
  Layout layout = Layout::Dense;
  std::array<Saved, 3> saves = {};
  FlopRule flop = FlopRule::None;
  Hidden hidden = Hidden::None;
};

[[nodiscard]] std::span<const OpRule> contraction_rules();  // matmul family, convolution, attention
[[nodiscard]] std::span<const OpRule> pointwise_rules();
[[nodiscard]] std::span<const OpRule> reduction_rules();   // norms, softmax, losses, sums
[[nodiscard]] std::span<const OpRule> movement_rules();    // views, copies, indexing, factories
[[nodiscard]] std::span<const OpRule> transition_rules();  // operators of local graphs

/// The rule of `target`, or null.
[[nodiscard]] const OpRule* find_rule(std::string_view target);

}  // namespace coxswain::model
