#pragma once
// The pass between the two matmuls of attention with dropout, one row at a time while it is in the first cache: scale,
// mask, softmax, dropout; and its backward. Called by attention.cpp. Threads: pure. Source: DESIGN 3.7.
#include <cstdint>

namespace coxswain::worker {

struct SoftmaxRow {
  std::int64_t length = 0;               // of the row
  std::int64_t visible = 0;              // leading elements that a causal mask leaves; the rest becomes 0
  float scale = 1.0F;                    // of the scores
  const float* bias = nullptr;           // added after scaling; -inf hides an element; may be null
  const std::uint32_t* words = nullptr;  // random words of the visible elements
  std::uint32_t threshold = 0;           // kept when word >= threshold
  float keep_scale = 1.0F;
};

/// scores -> softmax, negative where dropped, in place; `dropped` = what the second matmul takes (0 where dropped).
/// A fully hidden row gives zeros.
void softmax_dropout_row(const SoftmaxRow& row, float* scores, float* dropped);

/// In place: `signed_probabilities` as above -> what the second matmul took; `gradient` of that -> gradient of the
/// scores.
void softmax_dropout_row_backward(std::int64_t length, float scale, float keep_scale, float* signed_probabilities,
                                  float* gradient);

}  // namespace coxswain::worker
