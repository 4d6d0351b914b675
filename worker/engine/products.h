#pragma once
// Products of matrices on processors for which libtorch's own choice has no kernel of their kind. In float32: on AMD's
// with 512-bit vectors oneDNN, which libtorch holds too, takes 5 to 20 % less time than MKL for forward products and
// input gradients of 2^24 multiplications or more. In 16 bits: products_by_float32.h. Called by libtorch_setup.
// Threads: any. Private to worker/engine.

namespace coxswain::worker {

/// From now on `aten::mm`, `aten::addmm` and, in 16 bits, `aten::bmm` on CPU tensors of this process take the faster
/// way; nothing where libtorch's own is. The same sizes and layouts give the same bits. Idempotent.
void install_products();

}  // namespace coxswain::worker
