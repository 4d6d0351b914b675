#pragma once
// Dropout whose mask depends on (seed, step, operator, global sample, element) only: nothing is saved, backward draws
// the same words again. Called by op_call. Threads: as libtorch. Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <cstdint>

#include "worker/engine/random_words.h"

namespace coxswain::worker {

/// Which samples a tensor holds, and where.
struct DropoutPlace {
  int sample_dim = 0;
  std::int64_t rows_per_sample = 1;  // rows of the sample dim that belong to one sample; 0: no sample dim
  std::int64_t first_sample = 0;     // inside the global batch
};

/// Differentiable. Elements count inside a sample, in row-major order with the sample dim first.
/// Requires: float32.
[[nodiscard]] at::Tensor dropout(const at::Tensor& input, const DropoutStream& stream, const DropoutPlace& place);

/// The sample of a tensor without a sample dim: no real sample has this number.
inline constexpr std::uint32_t kNoSample = 0xFFFFFFFF;

}  // namespace coxswain::worker
