#pragma once
// Keep decisions of dropout from the counter generator: the word of an element depends on (seed, step, operator, global
// sample, element) alone, so neither plan nor recompute changes it. Bits are those of common/philox.h; AVX2 where it
// is. Called by dropout and attention kernels. Threads: pure. Source: DESIGN 3.7.
#include <array>
#include <cstdint>

namespace coxswain::worker {

/// Elements come in groups of 32: element e of a sample is word (e % 32) / 8 of counter (e / 32) * 8 + e % 8, so that
/// eight counters side by side give 32 consecutive elements.
inline constexpr std::int64_t kWordGroup = 32;

struct DropoutStream {
  std::array<std::uint32_t, 2> key{};  // of the seed
  std::uint32_t step = 0;
  std::uint32_t operation = 0;
  /// An element is kept when its word is at least this; scale is 1 / kept fraction.
  std::uint32_t threshold = 0;
  float scale = 1.0F;
};
/// Requires: 0 <= probability < 1.
[[nodiscard]] DropoutStream make_dropout_stream(std::uint64_t seed, std::int64_t step, int operation,
                                                double probability);

/// Words of elements [32 first_group, 32 (first_group + num_groups)) of `sample`.
void random_words(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group, std::int64_t num_groups,
                  std::uint32_t* words);

/// output = kept ? input x scale : 0, for `count` elements of `sample` from element 32 first_group. In place is
/// allowed.
void apply_dropout(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group, std::int64_t count,
                   const float* input, float* output);

/// The same with the words at hand: output = words[i] >= threshold ? input x scale : 0. In place is allowed.
void keep_by_words(const DropoutStream& stream, const std::uint32_t* words, std::int64_t count, const float* input,
                   float* output);

/// For attention: dropped probabilities change sign in place, which keeps both them and the decision in one tensor;
/// `scaled` gets what remains (probability x scale, or 0).
void apply_signed_dropout(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group,
                          std::int64_t count, float* probabilities, float* scaled);

/// How many decisions one call of a chunked kernel makes: enough to pay for the call, small enough for the first cache.
inline constexpr std::int64_t kWordChunk = 1024;

}  // namespace coxswain::worker
