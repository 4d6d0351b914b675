#pragma once
// Products of float32 matrices on processors for which MKL, libtorch's own choice, has no kernel of their kind: on
// AMD's with 512-bit vectors oneDNN, which libtorch holds too, takes 5 to 20 % less time for forward products and
// input gradients of 2^24 multiplications or more. Called by libtorch_setup. Threads: any. Private to worker/engine.

namespace coxswain::worker {

/// From now on `aten::mm` and `aten::addmm` on CPU tensors of this process take oneDNN where it is faster; nothing on
/// other processors. The same sizes and layouts give the same bits. Idempotent.
void install_products();

}  // namespace coxswain::worker
