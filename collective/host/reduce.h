#pragma once
// Sums, maxima and minima over arrays of every dtype. Half precisions are added in float32 and rounded once per call;
// integers wrap; bool adds as "or"; a NaN wins every maximum and minimum. Threads: pure.
#include <cstddef>
#include <cstdint>
#include <span>

#include "collective/communicator.h"

namespace coxswain::collective {

/// out[i] = sources[0][i] op sources[1][i] op ..., in that order. `out` may be one of the sources.
/// Requires: at least one source; `bytes` a multiple of the dtype's size.
void reduce(DType dtype, ReduceOp op, std::byte* out, std::span<const std::byte* const> sources, std::size_t bytes);

/// A dtype and operation in use, with a count of what passed through.
struct Reducer {
  DType dtype = DType::Float32;
  ReduceOp op = ReduceOp::Sum;
  std::int64_t reduced_bytes = 0;

  void operator()(std::byte* out, std::span<const std::byte* const> sources, std::size_t bytes) {
    reduced_bytes += static_cast<std::int64_t>(bytes * (sources.size() - 1));
    reduce(dtype, op, out, sources, bytes);
  }
  /// out = a op b
  void operator()(std::byte* out, const std::byte* a, const std::byte* b, std::size_t bytes) {
    const std::byte* const sources[] = {a, b};
    (*this)(out, sources, bytes);
  }
};

}  // namespace coxswain::collective
