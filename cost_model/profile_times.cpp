#include "cost_model/profile_times.h"

#include <algorithm>
#include <cmath>

#include "common/ensure.h"

namespace coxswain::cost_model {
namespace {

double forward_of(const cluster::BlockTiming& point) { return point.forward.value; }
double backward_of(const cluster::BlockTiming& point) { return point.backward.value; }

/// C12 for one quantity.
template <class Read>
double interpolate(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples, Read read) {
  const auto x = [&](std::size_t i) { return static_cast<double>(points[i]->samples); };
  const auto y = [&](std::size_t i) { return read(*points[i]); };
  const double at = static_cast<double>(samples);
  const std::size_t last = points.size() - 1;
  if (last == 0) return y(0) * at / x(0);
  const auto line = [&](std::size_t i) { return y(i) + (y(i + 1) - y(i)) * (at - x(i)) / (x(i + 1) - x(i)); };
  if (at < x(0)) return std::clamp(line(0), y(0) * at / x(0), y(0));
  if (at > x(last)) return std::max(line(last - 1), y(last));
  std::size_t i = 0;
  while (i + 2 <= last && at > x(i + 1)) ++i;
  return line(i);
}

/// C12: least squares.
template <class Read>
double at_no_samples(const std::vector<const cluster::BlockTiming*>& points, Read read) {
  const std::size_t count = std::min(points.size(), kFixedPoints);
  double x = 0, y = 0, xx = 0, xy = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto samples = static_cast<double>(points[i]->samples);
    x += samples;
    y += read(*points[i]);
    xx += samples * samples;
    xy += samples * read(*points[i]);
  }
  const double spread = static_cast<double>(count) * xx - x * x;
  return spread > 0 ? std::max(0.0, (xx * y - x * xy) / spread) : 0;
}

/// C12: half of the span of what the lines through the neighbouring points, or through no time at no samples, give.
template <class Read>
double uncertainty(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples, Read read) {
  const auto x = [&](std::size_t i) { return static_cast<double>(points[i]->samples); };
  const auto y = [&](std::size_t i) { return read(*points[i]); };
  const double at = static_cast<double>(samples), value = interpolate(points, samples, read);
  const std::size_t last = points.size() - 1;
  const auto share = [&](std::size_t i) { return y(i) * at / x(i); };
  const auto line = [&](std::size_t i) { return y(i) + (y(i + 1) - y(i)) * (at - x(i)) / (x(i + 1) - x(i)); };
  double least = value, most = value;
  const auto include = [&](double other) {
    least = std::min(least, other);
    most = std::max(most, other);
  };
  const auto exact = [&](const cluster::BlockTiming* point) { return point->samples == samples; };
  if (value <= 0 || std::any_of(points.begin(), points.end(), exact)) return 0;
  if (at < x(0) || at > x(last)) {
    const std::size_t end = at < x(0) ? 0 : last;
    include(share(end));
    include(y(end));
  } else {
    std::size_t i = 0;
    while (at > x(i + 1)) ++i;
    const double low = std::min(y(i), y(i + 1)), high = std::max(y(i), y(i + 1));
    include(std::clamp(i > 0 ? line(i - 1) : share(i), low, high));
    include(std::clamp(i + 2 <= last ? line(i + 1) : share(i + 1), low, high));
  }
  return (most - least) / 2 / value;
}

}  // namespace

BlockTime interpolate_block(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples) {
  COX_ENSURE(!points.empty());
  BlockTime time;
  time.forward = Seconds(interpolate(points, samples, forward_of));
  time.backward = Seconds(interpolate(points, samples, backward_of));
  return time;
}

BlockTime fixed_part(const std::vector<const cluster::BlockTiming*>& points) {
  BlockTime time;
  time.forward = Seconds(at_no_samples(points, forward_of));
  time.backward = Seconds(at_no_samples(points, backward_of));
  return time;
}

double interpolation_uncertainty(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples) {
  COX_ENSURE(!points.empty());
  return std::max(uncertainty(points, samples, forward_of), uncertainty(points, samples, backward_of));
}

double expert_load_cv(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples) {
  COX_ENSURE(!points.empty());
  for (const cluster::BlockTiming* point : points)
    if (point->samples >= samples) return point->expert_load_cv;
  return points.back()->expert_load_cv;
}

}  // namespace coxswain::cost_model
