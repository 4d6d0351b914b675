#pragma once
// Cross entropy whose classes are split over a group: every member has the logits of its own classes for all rows.
// Exchanged are the greatest logit of each row, then one sum of two or three numbers a row; the logits stay where they
// are. Kept for backward are the logits and one number a row (the log of the sum of exponentials), so backward makes
// one tensor of the logits' size, or none where nobody else holds the logits any more. In a group of one it is a cross
// entropy that keeps no log-softmax.
// Called by op_call for coxswain::cross_entropy. Threads: as libtorch. Private to worker/engine. Source: Shoeybi et al.
// 2019 (arXiv 1909.08053), section 3; DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "worker/engine/parallel_link.h"

namespace coxswain::worker {

/// As aten::cross_entropy_loss with class indices and no weights.
struct CrossEntropyArguments {
  at::Tensor logits;               // (rows, own classes) or (rows, own classes, ...), float32 or bfloat16
  at::Tensor target;               // (rows) or (rows, ...), int64, classes of the whole
  std::vector<std::int64_t> runs;  // of the classes: first and size, member after member
  std::int64_t reduction = 1;      // 0: none, 1: mean over the rows that count, 2: sum
  std::int64_t ignore_index = -100;
  double label_smoothing = 0;
};

/// The same on every member, float32. Differentiable: logits; the incoming gradient is a summand of the group's
/// (Partial), as that of every replicated tensor. Errors, thrown by every member alike: a target that is no class;
/// CommunicationError.
[[nodiscard]] at::Tensor parallel_cross_entropy(const CrossEntropyArguments& arguments, const ParallelLink& link);

}  // namespace coxswain::worker
