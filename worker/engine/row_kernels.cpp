#include "worker/engine/row_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/engine/avx2_lanes.h"

namespace coxswain::worker {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

#if defined(__x86_64__)

// Whole vectors first, so that only the last, partial one pays for its mask; lanes past the end hold `rest`.
template <class Body>
COX_AVX2 __attribute__((always_inline)) inline void for_lanes(const float* x, std::int64_t count, float rest,
                                                              Body&& body) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) body(_mm256_loadu_ps(x + i), i, _mm256_set1_epi32(-1));
  if (i == count) return;
  const __m256i mask = lane_mask(count - i);
  body(_mm256_blendv_ps(_mm256_set1_ps(rest), _mm256_maskload_ps(x + i, mask), _mm256_castsi256_ps(mask)), i, mask);
}

// exp_avx2 is clamped, so what is hidden is cut out here.
COX_AVX2 inline __m256 visible_exp(__m256 x, __m256 shift) {
  const __m256 visible = _mm256_cmp_ps(x, _mm256_set1_ps(kHidden), _CMP_NLE_UQ);
  return _mm256_and_ps(exp_avx2(_mm256_sub_ps(x, shift)), visible);
}

COX_AVX2 float max_avx2(const float* x, std::int64_t count) {
  __m256 largest = _mm256_set1_ps(kHidden);
  for_lanes(x, count, kHidden,
            [&](__m256 value, std::int64_t, __m256i) COX_AVX2 { largest = _mm256_max_ps(largest, value); });
  return max_lanes(largest);
}

COX_AVX2 float sum_avx2(const float* x, std::int64_t count) {
  __m256 sums = _mm256_setzero_ps();
  for_lanes(x, count, 0, [&](__m256 value, std::int64_t, __m256i) COX_AVX2 { sums = _mm256_add_ps(sums, value); });
  return sum_lanes(sums);
}

COX_AVX2 float sum_exp_avx2(const float* x, std::int64_t count, float shift) {
  const __m256 shifts = _mm256_set1_ps(shift);
  __m256 sums = _mm256_setzero_ps();
  for_lanes(x, count, kHidden, [&](__m256 value, std::int64_t, __m256i) COX_AVX2 {
    sums = _mm256_add_ps(sums, visible_exp(value, shifts));
  });
  return sum_lanes(sums);
}

COX_AVX2 float exp_in_place_avx2(float* x, std::int64_t count, float shift) {
  const __m256 shifts = _mm256_set1_ps(shift);
  __m256 sums = _mm256_setzero_ps();
  for_lanes(x, count, kHidden, [&](__m256 value, std::int64_t i, __m256i mask) COX_AVX2 {
    const __m256 y = visible_exp(value, shifts);
    sums = _mm256_add_ps(sums, y);
    _mm256_maskstore_ps(x + i, mask, y);
  });
  return sum_lanes(sums);
}

COX_AVX2 void scaled_exp_avx2(const float* x, std::int64_t count, float shift, float factor, float minus,
                              float* output) {
  const __m256 shifts = _mm256_set1_ps(shift), factors = _mm256_set1_ps(factor), less = _mm256_set1_ps(minus);
  for_lanes(x, count, kHidden, [&](__m256 value, std::int64_t i, __m256i mask) COX_AVX2 {
    _mm256_maskstore_ps(output + i, mask, _mm256_fmsub_ps(factors, visible_exp(value, shifts), less));
  });
}

COX_AVX2 void scale_in_place_avx2(float* x, std::int64_t count, float factor) {
  const __m256 factors = _mm256_set1_ps(factor);
  for_lanes(x, count, 0, [&](__m256 value, std::int64_t i, __m256i mask) COX_AVX2 {
    _mm256_maskstore_ps(x + i, mask, _mm256_mul_ps(value, factors));
  });
}

COX_AVX2 void score_gradient_avx2(const float* p, std::int64_t count, float product, float scale, float* gradient) {
  const __m256 products = _mm256_set1_ps(product), scales = _mm256_set1_ps(scale);
  for_lanes(p, count, 0, [&](__m256 value, std::int64_t i, __m256i mask) COX_AVX2 {
    const __m256 g = _mm256_sub_ps(_mm256_maskload_ps(gradient + i, mask), products);
    _mm256_maskstore_ps(gradient + i, mask, _mm256_mul_ps(_mm256_mul_ps(value, g), scales));
  });
}

#else

void scale_in_place_avx2(float*, std::int64_t, float) {}
void score_gradient_avx2(const float*, std::int64_t, float, float, float*) {}
float max_avx2(const float*, std::int64_t) { return 0; }
float sum_avx2(const float*, std::int64_t) { return 0; }
float sum_exp_avx2(const float*, std::int64_t, float) { return 0; }
float exp_in_place_avx2(float*, std::int64_t, float) { return 0; }
void scaled_exp_avx2(const float*, std::int64_t, float, float, float, float*) {}

#endif

float portable_exp(float x, float shift) { return x == kHidden ? 0.0F : std::exp(x - shift); }

}  // namespace

float max_of(const float* x, std::int64_t count) {
  if (has_avx2()) return max_avx2(x, count);
  float largest = kHidden;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, x[i]);
  return largest;
}

float sum_of(const float* x, std::int64_t count) {
  if (has_avx2()) return sum_avx2(x, count);
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i];
  return sum;
}

float sum_of_exp(const float* x, std::int64_t count, float shift) {
  if (has_avx2()) return sum_exp_avx2(x, count, shift);
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += portable_exp(x[i], shift);
  return sum;
}

float exp_in_place(float* x, std::int64_t count, float shift) {
  if (has_avx2()) return exp_in_place_avx2(x, count, shift);
  float sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += x[i] = portable_exp(x[i], shift);
  return sum;
}

void scale_in_place(float* x, std::int64_t count, float factor) {
  if (has_avx2()) return scale_in_place_avx2(x, count, factor);
  for (std::int64_t i = 0; i < count; ++i) x[i] *= factor;
}

void score_gradient(const float* p, std::int64_t count, float product, float scale, float* gradient) {
  if (has_avx2()) return score_gradient_avx2(p, count, product, scale, gradient);
  for (std::int64_t i = 0; i < count; ++i) gradient[i] = p[i] * (gradient[i] - product) * scale;
}

void scaled_exp(const float* x, std::int64_t count, float shift, float factor, float minus, float* output) {
  if (has_avx2()) return scaled_exp_avx2(x, count, shift, factor, minus, output);
  for (std::int64_t i = 0; i < count; ++i) output[i] = factor * portable_exp(x[i], shift) - minus;
}

}  // namespace coxswain::worker
