#pragma once
// Times of a block between and beyond the samples at which it was measured. Threads: pure.
// Source: docs/cost_model.md, C12.
#include <vector>

#include "cluster/profile.h"
#include "cost_model/cost_model.h"

namespace coxswain::cost_model {

/// C12: piecewise linear in samples. Beyond the largest: the slope of the last two points, never falling. Below the
/// smallest: the line through the first two, but at least the proportional share and at most the smallest point. One
/// point: proportional. Requires: `points` ascend in samples, not empty.
[[nodiscard]] BlockTime interpolate_block(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples);
/// C12: what does not grow with samples: where the line that fits the first kFixedPoints points best meets none, at
/// least 0. One point: nothing.
[[nodiscard]] BlockTime fixed_part(const std::vector<const cluster::BlockTiming*>& points);
inline constexpr std::size_t kFixedPoints = 4;
/// C12: half of what forward or backward may lie apart by what the points know, over the value; 0 at a measured number.
[[nodiscard]] double interpolation_uncertainty(const std::vector<const cluster::BlockTiming*>& points,
                                               std::int64_t samples);
/// C32: the experts' coefficient of variation at the first point of at least `samples`, else at the last; negative
/// where the profile says nothing.
[[nodiscard]] double expert_load_cv(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples);

}  // namespace coxswain::cost_model
