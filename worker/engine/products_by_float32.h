#pragma once
// Products of 16-bit matrices on processors that have no arithmetic of that type: there libtorch multiplies element by
// element, 3 to 90 times as slow as MKL multiplies the same numbers in float32 (256 to 1,024 rows, one thread, AVX2).
// Operands are widened a tile at a time, sums are float32, and each result is rounded once, as on processors that have
// the arithmetic. Beside the result a thread keeps 2.3 MB of tiles, outside of the caching allocator's count.
// Threads: any. Private to worker/engine.
#include <ATen/core/Tensor.h>

namespace coxswain::worker {

/// bfloat16 or float16 on the CPU where oneDNN has no kernels for it.
bool lacks_arithmetic(c10::ScalarType type);

/// `out` (rows, columns) = beta x `bias`, where there is one, + alpha x `left` (rows, inner) x `right` (inner,
/// columns). All of one 16-bit type, strided in any way; the bias is what expands to `out`; `out` may be the bias and
/// is no operand.
void multiply_by_float32(const at::Tensor& left, const at::Tensor& right, const at::Tensor& bias, double beta,
                         double alpha, const at::Tensor& out);

}  // namespace coxswain::worker
