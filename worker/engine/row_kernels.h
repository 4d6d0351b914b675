#pragma once
// What softmax needs of a row of float32, eight at a time: greatest, sum of exponentials, exponentials. -inf hides an
// element (its exponential is exactly 0), not a number stays so. Called by the kernels of cross entropy and ring
// attention. Threads: pure. Private to worker/engine. Source: DESIGN 3.7.
#include <cstdint>

namespace coxswain::worker {

/// -inf for no element.
[[nodiscard]] float max_of(const float* x, std::int64_t count);
[[nodiscard]] float sum_of(const float* x, std::int64_t count);
/// Sum of exp(x - shift).
[[nodiscard]] float sum_of_exp(const float* x, std::int64_t count, float shift);
/// x := exp(x - shift); returns their sum.
float exp_in_place(float* x, std::int64_t count, float shift);
void scale_in_place(float* x, std::int64_t count, float factor);
/// Softmax's backward: gradient := p x (gradient - product) x scale, where `product` is the sum of p x gradient.
void score_gradient(const float* p, std::int64_t count, float product, float scale, float* gradient);
/// output := factor x exp(x - shift) - minus; in place is allowed.
void scaled_exp(const float* x, std::int64_t count, float shift, float factor, float minus, float* output);

}  // namespace coxswain::worker
