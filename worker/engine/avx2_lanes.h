#pragma once
// Eight floats at a time, for machines with AVX2 and FMA (`has_avx2` asks at run time). Included by the row kernels.
// Private to worker/engine. Threads: pure.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#define COX_AVX2 __attribute__((target("avx2,fma")))

namespace coxswain::worker {

// exp by 2^n times a polynomial of the remainder (Cephes' coefficients); relative error below 2e-7. What is below -87.3
// counts as that; not a number stays so (max_ps gives its second operand then).
COX_AVX2 inline __m256 exp_avx2(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-87.3F), x);
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341F)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375F), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4F), r);
  __m256 y = _mm256_set1_ps(1.9875691500e-4F);
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.3981999507e-3F));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(8.3334519073e-3F));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(4.1665795894e-2F));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.6666665459e-1F));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(5.0000001201e-1F));
  y = _mm256_fmadd_ps(y, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0F)));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(y, _mm256_castsi256_ps(power));
}

COX_AVX2 inline float sum_lanes(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

COX_AVX2 inline float max_lanes(__m256 x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// Rows are padded in registers: the lanes past the end load as hidden and are not stored.
COX_AVX2 inline __m256i lane_mask(std::int64_t remaining) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::min<std::int64_t>(remaining, 8))), lanes);
}

inline bool has_avx2() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return has;
}

}  // namespace coxswain::worker
#else
namespace coxswain::worker {
inline bool has_avx2() { return false; }
}  // namespace coxswain::worker
#endif
