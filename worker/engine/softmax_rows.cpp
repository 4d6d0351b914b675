#include "worker/engine/softmax_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/engine/avx2_lanes.h"

namespace coxswain::worker {
namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

void forward_portable(const SoftmaxRow& row, float* scores, float* dropped) {
  float largest = kHidden;
  for (std::int64_t i = 0; i < row.visible; ++i) {
    scores[i] = scores[i] * row.scale + (row.bias ? row.bias[i] : 0.0F);
    largest = std::max(largest, scores[i]);
  }
  float sum = 0;
  const float shift = largest == kHidden ? 0 : largest;
  for (std::int64_t i = 0; i < row.visible; ++i) {
    scores[i] = std::exp(scores[i] - shift);
    sum += scores[i];
  }
  const float inverse = sum > 0 ? 1 / sum : 0;
  for (std::int64_t i = 0; i < row.visible; ++i) {
    const float probability = scores[i] * inverse;
    const bool kept = row.words[i] >= row.threshold;
    dropped[i] = kept ? probability * row.keep_scale : 0.0F;
    scores[i] = kept ? probability : -probability;
  }
}

void backward_portable(std::int64_t length, float scale, float keep_scale, float* probabilities, float* gradient) {
  float sum = 0;
  for (std::int64_t i = 0; i < length; ++i) {
    const bool kept = !std::signbit(probabilities[i]);
    gradient[i] = kept ? gradient[i] * keep_scale : 0.0F;
    sum += gradient[i] * std::abs(probabilities[i]);
  }
  for (std::int64_t i = 0; i < length; ++i) {
    gradient[i] = std::abs(probabilities[i]) * (gradient[i] - sum) * scale;
    probabilities[i] = std::max(probabilities[i], 0.0F) * keep_scale;
  }
}

#if defined(__x86_64__)
COX_AVX2 void forward_avx2(const SoftmaxRow& row, float* scores, float* dropped) {
  const __m256 hidden = _mm256_set1_ps(kHidden);
  const __m256 scale = _mm256_set1_ps(row.scale);
  __m256 largest = hidden;
  for (std::int64_t i = 0; i < row.visible; i += 8) {
    const __m256i mask = lane_mask(row.visible - i);
    __m256 x = _mm256_mul_ps(_mm256_maskload_ps(scores + i, mask), scale);
    if (row.bias) x = _mm256_add_ps(x, _mm256_maskload_ps(row.bias + i, mask));
    x = _mm256_blendv_ps(hidden, x, _mm256_castsi256_ps(mask));
    largest = _mm256_max_ps(largest, x);
    _mm256_maskstore_ps(scores + i, mask, x);
  }
  const float top = max_lanes(largest);
  const __m256 shift = _mm256_set1_ps(top == kHidden ? 0 : top);
  __m256 sums = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < row.visible; i += 8) {
    const __m256i mask = lane_mask(row.visible - i);
    const __m256 x = _mm256_maskload_ps(scores + i, mask);
    // The polynomial is clamped, so what is hidden is cut out here.
    // Not a number is not hidden, or a broken run would look sound.
    const __m256 visible = _mm256_and_ps(_mm256_cmp_ps(x, hidden, _CMP_NLE_UQ), _mm256_castsi256_ps(mask));
    const __m256 y = _mm256_and_ps(exp_avx2(_mm256_sub_ps(x, shift)), visible);
    sums = _mm256_add_ps(sums, y);
    _mm256_maskstore_ps(scores + i, mask, y);
  }
  const float sum = sum_lanes(sums);
  const __m256 inverse = _mm256_set1_ps(sum > 0 ? 1 / sum : 0);
  const __m256 keep_scale = _mm256_set1_ps(row.keep_scale);
  const __m256 sign = _mm256_set1_ps(-0.0F);
  const __m256i threshold = _mm256_set1_epi32(static_cast<int>(row.threshold));
  for (std::int64_t i = 0; i < row.visible; i += 8) {
    const __m256i mask = lane_mask(row.visible - i);
    const __m256 probability = _mm256_mul_ps(_mm256_maskload_ps(scores + i, mask), inverse);
    const __m256i word = _mm256_maskload_epi32(reinterpret_cast<const int*>(row.words + i), mask);
    const __m256 kept = _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(word, threshold), word));
    _mm256_maskstore_ps(dropped + i, mask, _mm256_and_ps(_mm256_mul_ps(probability, keep_scale), kept));
    _mm256_maskstore_ps(scores + i, mask, _mm256_xor_ps(probability, _mm256_andnot_ps(kept, sign)));
  }
}

COX_AVX2 void backward_avx2(std::int64_t length, float scale, float keep_scale, float* probabilities, float* gradient) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  const __m256 factor = _mm256_set1_ps(keep_scale);
  __m256 sums = _mm256_setzero_ps();
  for (std::int64_t i = 0; i < length; i += 8) {
    const __m256i mask = lane_mask(length - i);
    const __m256 p = _mm256_maskload_ps(probabilities + i, mask);
    // The sign bit chooses: blendv takes its second operand where it is set.
    const __m256 g =
        _mm256_blendv_ps(_mm256_mul_ps(_mm256_maskload_ps(gradient + i, mask), factor), _mm256_setzero_ps(), p);
    sums = _mm256_add_ps(sums, _mm256_mul_ps(g, _mm256_andnot_ps(sign, p)));
    _mm256_maskstore_ps(gradient + i, mask, g);
  }
  const __m256 sum = _mm256_set1_ps(sum_lanes(sums));
  const __m256 score_scale = _mm256_set1_ps(scale);
  for (std::int64_t i = 0; i < length; i += 8) {
    const __m256i mask = lane_mask(length - i);
    const __m256 p = _mm256_maskload_ps(probabilities + i, mask);
    const __m256 g = _mm256_sub_ps(_mm256_maskload_ps(gradient + i, mask), sum);
    _mm256_maskstore_ps(gradient + i, mask, _mm256_mul_ps(_mm256_mul_ps(_mm256_andnot_ps(sign, p), g), score_scale));
    _mm256_maskstore_ps(probabilities + i, mask, _mm256_mul_ps(_mm256_max_ps(p, _mm256_setzero_ps()), factor));
  }
}

#else
void forward_avx2(const SoftmaxRow&, float*, float*) {}
void backward_avx2(std::int64_t, float, float, float*, float*) {}
#endif

}  // namespace

void softmax_dropout_row(const SoftmaxRow& row, float* scores, float* dropped) {
  if (has_avx2()) {
    forward_avx2(row, scores, dropped);
  } else {
    forward_portable(row, scores, dropped);
  }
  std::fill(scores + row.visible, scores + row.length, 0.0F);
  std::fill(dropped + row.visible, dropped + row.length, 0.0F);
}

void softmax_dropout_row_backward(std::int64_t length, float scale, float keep_scale, float* signed_probabilities,
                                  float* gradient) {
  if (has_avx2()) return backward_avx2(length, scale, keep_scale, signed_probabilities, gradient);
  backward_portable(length, scale, keep_scale, signed_probabilities, gradient);
}

}  // namespace coxswain::worker
