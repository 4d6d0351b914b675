#pragma once
// CPU memory of libtorch: freed blocks are kept for the next tensor of their size class (returning them to the kernel
// costs 8-13 % of a step), and bytes in use are counted after rounding, so that the measured peak is exact and
// repeatable. Called by the engine (install once per process). Threads: any. Source: DESIGN 3.7.
#include <cstddef>

#include "common/units.h"

namespace coxswain::worker {

/// Makes this the allocator of every CPU tensor from now on. Idempotent; earlier tensors keep their own.
void install_caching_allocator();

/// Size of the block that serves a request: multiples of 64 bytes up to 512, then eight classes per doubling.
[[nodiscard]] std::size_t size_class_bytes(std::size_t request);

/// While one lives, tensors that this thread makes get the bytes that they ask for (to 64), which go back to the system
/// when they are freed: for what lives as long as the training, where a size class would waste up to an eighth.
class ExactSizes {
 public:
  ExactSizes();
  ~ExactSizes();
  ExactSizes(const ExactSizes&) = delete;
  ExactSizes& operator=(const ExactSizes&) = delete;

 private:
  bool before_;
};

/// Bytes in use, rounded, without cached free blocks; and their peak since the last reset.
[[nodiscard]] Bytes memory_in_use();
[[nodiscard]] Bytes memory_peak();
/// The peak starts again at what is in use now.
void reset_memory_peak();
/// Counts memory that tensors use but that came from elsewhere (shared regions); negative when it is given back.
void count_foreign_memory(Bytes change);
/// Returns cached free blocks to the system.
void release_cached_memory();

}  // namespace coxswain::worker
