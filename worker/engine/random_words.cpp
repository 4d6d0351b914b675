#include "worker/engine/random_words.h"

#include <algorithm>
#include <cmath>

#include "common/philox.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace coxswain::worker {
namespace {

constexpr int kLanes = 8;

void words_of_group(const DropoutStream& stream, std::uint32_t sample, std::int64_t group, std::uint32_t* words) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto counter = static_cast<std::uint32_t>(group * kLanes + lane);
    const auto four = philox4x32(stream.key, {counter, sample, stream.operation, stream.step});
    for (int word = 0; word < 4; ++word) words[word * kLanes + lane] = four[word];
  }
}

void random_words_portable(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group,
                           std::int64_t num_groups, std::uint32_t* words) {
  for (std::int64_t g = 0; g < num_groups; ++g) words_of_group(stream, sample, first_group + g, words + g * kWordGroup);
}

void keep_portable(const std::uint32_t* words, std::uint32_t threshold, float scale, std::int64_t count,
                   const float* input, float* output) {
  for (std::int64_t i = 0; i < count; ++i) output[i] = words[i] >= threshold ? input[i] * scale : 0.0F;
}

void keep_signed_portable(const std::uint32_t* words, std::uint32_t threshold, float scale, std::int64_t count,
                          float* probabilities, float* scaled) {
  for (std::int64_t i = 0; i < count; ++i) {
    const bool kept = words[i] >= threshold;
    scaled[i] = kept ? probabilities[i] * scale : 0.0F;
    probabilities[i] = kept ? probabilities[i] : -probabilities[i];
  }
}

#if defined(__x86_64__)

// High and low halves of eight 32 x 32 bit products: the even lanes and the odd ones are multiplied apart.
__attribute__((target("avx2"))) inline void multiply(__m256i a, __m256i multiplier, __m256i& high, __m256i& low) {
  const __m256i even = _mm256_mul_epu32(a, multiplier);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), multiplier);
  low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

__attribute__((target("avx2"))) void random_words_avx2(const DropoutStream& stream, std::uint32_t sample,
                                                       std::int64_t first_group, std::int64_t num_groups,
                                                       std::uint32_t* words) {
  const __m256i multiplier0 = _mm256_set1_epi32(static_cast<int>(0xD2511F53));
  const __m256i multiplier1 = _mm256_set1_epi32(static_cast<int>(0xCD9E8D57));
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (std::int64_t g = 0; g < num_groups; ++g) {
    __m256i c0 = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>((first_group + g) * kLanes)), lanes);
    __m256i c1 = _mm256_set1_epi32(static_cast<int>(sample));
    __m256i c2 = _mm256_set1_epi32(static_cast<int>(stream.operation));
    __m256i c3 = _mm256_set1_epi32(static_cast<int>(stream.step));
    std::uint32_t key0 = stream.key[0], key1 = stream.key[1];
    for (int round = 0; round < 10; ++round) {
      __m256i high0, low0, high1, low1;
      multiply(c0, multiplier0, high0, low0);
      multiply(c2, multiplier1, high1, low1);
      c0 = _mm256_xor_si256(_mm256_xor_si256(high1, c1), _mm256_set1_epi32(static_cast<int>(key0)));
      c1 = low1;
      c2 = _mm256_xor_si256(_mm256_xor_si256(high0, c3), _mm256_set1_epi32(static_cast<int>(key1)));
      c3 = low0;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    auto* target = reinterpret_cast<__m256i*>(words + g * kWordGroup);
    _mm256_storeu_si256(target, c0);
    _mm256_storeu_si256(target + 1, c1);
    _mm256_storeu_si256(target + 2, c2);
    _mm256_storeu_si256(target + 3, c3);
  }
}

// All ones where word >= threshold, unsigned.
__attribute__((target("avx2"))) inline __m256 kept_mask(const std::uint32_t* words, __m256i threshold) {
  const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
  return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(word, threshold), word));
}

__attribute__((target("avx2"))) void keep_avx2(const std::uint32_t* words, std::uint32_t threshold, float scale,
                                               std::int64_t count, const float* input, float* output) {
  const __m256i limit = _mm256_set1_epi32(static_cast<int>(threshold));
  const __m256 factor = _mm256_set1_ps(scale);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(input + i), factor);
    _mm256_storeu_ps(output + i, _mm256_and_ps(value, kept_mask(words + i, limit)));
  }
  keep_portable(words + i, threshold, scale, count - i, input + i, output + i);
}

__attribute__((target("avx2"))) void keep_signed_avx2(const std::uint32_t* words, std::uint32_t threshold, float scale,
                                                      std::int64_t count, float* probabilities, float* scaled) {
  const __m256i limit = _mm256_set1_epi32(static_cast<int>(threshold));
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256 sign = _mm256_set1_ps(-0.0F);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const __m256 value = _mm256_loadu_ps(probabilities + i);
    const __m256 kept = kept_mask(words + i, limit);
    _mm256_storeu_ps(scaled + i, _mm256_and_ps(_mm256_mul_ps(value, factor), kept));
    _mm256_storeu_ps(probabilities + i, _mm256_xor_ps(value, _mm256_andnot_ps(kept, sign)));
  }
  keep_signed_portable(words + i, threshold, scale, count - i, probabilities + i, scaled + i);
}

bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

#endif

using KeepKernel = decltype(&keep_portable);
using KeepSignedKernel = decltype(&keep_signed_portable);
using WordKernel = decltype(&random_words_portable);

struct Kernels {
  WordKernel words = random_words_portable;
  KeepKernel keep = keep_portable;
  KeepSignedKernel keep_signed = keep_signed_portable;
};

Kernels choose_kernels() {
#if defined(__x86_64__)
  if (has_avx2()) return {random_words_avx2, keep_avx2, keep_signed_avx2};
#endif
  return {};
}

const Kernels& kernels() {
  static const Kernels chosen = choose_kernels();
  return chosen;
}

/// Calls body(words, first element, count) for chunks that stay in the first cache.
template <class Body>
void for_chunks(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group, std::int64_t count,
                Body&& body) {
  alignas(64) std::uint32_t words[kWordChunk];
  for (std::int64_t first = 0; first < count; first += kWordChunk) {
    const std::int64_t here = std::min(kWordChunk, count - first);
    kernels().words(stream, sample, first_group + first / kWordGroup, (here + kWordGroup - 1) / kWordGroup, words);
    body(words, first, here);
  }
}

}  // namespace

DropoutStream make_dropout_stream(std::uint64_t seed, std::int64_t step, int operation, double probability) {
  DropoutStream stream;
  stream.key = make_philox_key(seed, "dropout");
  stream.step = static_cast<std::uint32_t>(step);
  stream.operation = static_cast<std::uint32_t>(operation);
  stream.threshold = static_cast<std::uint32_t>(std::min(std::nearbyint(probability * 0x1p32), 0x1p32 - 1));
  stream.scale = static_cast<float>(1.0 / (1.0 - probability));
  return stream;
}

void random_words(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group, std::int64_t num_groups,
                  std::uint32_t* words) {
  kernels().words(stream, sample, first_group, num_groups, words);
}

void apply_dropout(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group, std::int64_t count,
                   const float* input, float* output) {
  for_chunks(stream, sample, first_group, count,
             [&](const std::uint32_t* words, std::int64_t first, std::int64_t here) {
               kernels().keep(words, stream.threshold, stream.scale, here, input + first, output + first);
             });
}

void keep_by_words(const DropoutStream& stream, const std::uint32_t* words, std::int64_t count, const float* input,
                   float* output) {
  kernels().keep(words, stream.threshold, stream.scale, count, input, output);
}

void apply_signed_dropout(const DropoutStream& stream, std::uint32_t sample, std::int64_t first_group,
                          std::int64_t count, float* probabilities, float* scaled) {
  for_chunks(
      stream, sample, first_group, count, [&](const std::uint32_t* words, std::int64_t first, std::int64_t here) {
        kernels().keep_signed(words, stream.threshold, stream.scale, here, probabilities + first, scaled + first);
      });
}

}  // namespace coxswain::worker
