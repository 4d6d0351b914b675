#include "cost_model/profile_times.h"

#include <algorithm>
#include <cmath>

#include "common/ensure.h"

namespace coxswain::cost_model {
namespace {

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

}  // namespace

BlockTime interpolate_block(const std::vector<const cluster::BlockTiming*>& points, std::int64_t samples) {
  COX_ENSURE(!points.empty());
  BlockTime time;
  time.measured = true;
  time.forward = Seconds(interpolate(points, samples, [](const cluster::BlockTiming& p) { return p.forward.value; }));
  time.backward = Seconds(interpolate(points, samples, [](const cluster::BlockTiming& p) { return p.backward.value; }));
  const auto bytes = [&](Bytes cluster::BlockTiming::* member) {
    return Bytes(std::llround(interpolate(
        points, samples, [&](const cluster::BlockTiming& p) { return static_cast<double>((p.*member).value); })));
  };
  time.saved = bytes(&cluster::BlockTiming::saved);
  time.transient = bytes(&cluster::BlockTiming::transient);
  return time;
}

}  // namespace coxswain::cost_model
