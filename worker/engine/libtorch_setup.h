#pragma once
// How libtorch works in a process of ours: allocator, number of threads, kernels in place of its own. Called by
// everything that computes, before its first tensor. Threads: any; idempotent. Private to worker/engine.

namespace coxswain::worker {

/// `threads`: of one operator.
void set_up_libtorch(int threads);

}  // namespace coxswain::worker
