#pragma once
// Dropout whose mask depends on (seed, step, operator, global sample, element) only: nothing is saved, backward draws
// the same words again. Called by op_call. Threads: as libtorch. Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/engine/random_words.h"

namespace coxswain::worker {

/// Where the elements of a part lie in the whole tensor, on a mesh of several devices.
struct PartIndex {
  std::vector<std::int64_t> sizes;              // of the whole
  std::vector<std::vector<std::int64_t>> rows;  // by dim: the whole's index of each index of the part, ascending
};

/// Which samples a tensor holds, and where.
struct DropoutPlace {
  int sample_dim = 0;
  std::int64_t rows_per_sample = 1;  // rows of the sample dim that belong to one sample; 0: no sample dim
  std::int64_t first_sample = 0;     // inside the global batch
  /// Null: all of the tensor. Dim and rows above are the whole's.
  std::shared_ptr<const PartIndex> part = nullptr;
};

/// Differentiable. Elements count inside a sample of the whole tensor, in row-major order with the sample dim first.
/// Requires: float32.
[[nodiscard]] at::Tensor dropout(const at::Tensor& input, const DropoutStream& stream, const DropoutPlace& place);

/// The sample of a tensor without a sample dim: no real sample has this number.
inline constexpr std::uint32_t kNoSample = 0xFFFFFFFF;

}  // namespace coxswain::worker
