#pragma once
// Counter-based random numbers (Philox 4x32-10): the value depends on key and counter alone, never on the order of
// calls, so that permutation of data, initial weights and dropout do not depend on the plan.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Threads: pure.
#include <array>
#include <cstdint>

namespace coxswain {

/// Four 32-bit words for (key, counter). Known answers are in tests/common/philox_test.cpp.
[[nodiscard]] std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 2> key,
                                                      std::array<std::uint32_t, 4> counter);

/// [0, 1) with 24 bits.
[[nodiscard]] constexpr float uniform_from(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1.0p-24f; }

/// A 64-bit key word pair out of a seed and a stream name (FNV-1a mixed in).
[[nodiscard]] std::array<std::uint32_t, 2> make_philox_key(std::uint64_t seed, const char* stream);

}  // namespace coxswain
