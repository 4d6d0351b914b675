#include "planner/combination_bounds.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>

namespace coxswain::planner {
namespace {

/// Least over most time of one replica when a micro-batch is shared out over `replicas` of a kind: C24's k.
double evenness(const SearchSpace& space, UnitKind kind, std::int64_t micro, std::int64_t replicas) {
  if (micro % replicas == 0) return 1.0;
  const SampleTable& most = space.spans->table(kind, (micro + replicas - 1) / replicas);
  const SampleTable& least = space.spans->table(kind, micro / replicas);
  double k = 1.0;
  for (std::size_t b = 0; b < most.forward.size(); ++b) {
    const Ticks busiest = most.forward[b] + most.backward[b];
    if (busiest > 0)
      k = std::min(k, static_cast<double>(least.forward[b] + least.backward[b]) / static_cast<double>(busiest));
  }
  return k;
}

/// The fastest units that stages of `one` can stand on.
Counts usable_units(const SearchSpace& space, const Combination& one) {
  std::int64_t most = 0;
  Counts limit;  // of each pool by all stages
  for (const Counts& counts : one.compositions) {
    most = std::max<std::int64_t>(most, counts.total());
    for (std::size_t p = 0; p < space.pools.size(); ++p)
      limit.of[p] = std::max(limit.of[p], static_cast<std::int32_t>(std::min<std::int64_t>(
                                              space.devices.of[p], std::int64_t{counts.of[p]} * one.max_stages)));
  }
  const std::vector<double>& speed = one.work->prices().front().speed;
  std::vector<std::size_t> order(space.pools.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return speed[a] > speed[b]; });
  std::int64_t left = most * one.max_stages;
  Counts usable;
  for (const std::size_t p : order) {
    usable.of[p] = static_cast<std::int32_t>(std::min<std::int64_t>(left, limit.of[p]));
    left -= usable.of[p];
  }
  return usable;
}

}  // namespace

Cost fill_bound(const SearchSpace& space, const Combination& one, std::int64_t replicas) {
  const UnitKind kind = space.pools.front().kind();
  const SampleTable& most = space.spans->table(kind, (one.micro + replicas - 1) / replicas);
  const double k = evenness(space, kind, one.micro, replicas);
  const Cost all = most.forward_sum.back() + most.backward_sum.back();
  const double filled = 1.0 - std::pow(1.0 - k / static_cast<double>(one.count), one.max_stages);
  return std::max(one.count * (all / one.max_stages),
                  static_cast<Cost>(k * static_cast<double>(all) / filled * (1 - 1e-9)));
}

Cost ramp_bound(const SearchSpace& space, const Combination& one) {
  struct Kind {
    std::size_t pool = 0;
    std::int32_t replicas = 0;
    std::int64_t stages = 0;
  };
  std::vector<Kind> kinds;
  double k = 1.0;
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    std::int32_t replicas = 0;
    for (const Counts& counts : one.compositions) {
      if (counts.of[p] > 0 && counts.of[p] != counts.total()) return 0;
      replicas = std::max(replicas, counts.of[p]);
      if (counts.of[p] > 0) k = std::min(k, evenness(space, space.pools[p].kind(), one.micro, counts.of[p]));
    }
    if (replicas > 0) kinds.push_back({p, replicas, (space.devices.of[p] + replicas - 1) / replicas});
  }
  Cost bound = 0;
  const double fade = 1.0 - k / static_cast<double>(one.count);
  for (const WorkBound::Prices& prices : one.work->prices()) {
    const auto stage_speed = [&](const Kind& kind) { return kind.replicas * prices.speed[kind.pool]; };
    std::stable_sort(kinds.begin(), kinds.end(),
                     [&](const Kind& a, const Kind& b) { return stage_speed(a) > stage_speed(b); });
    double speed = 0, share = 1;
    std::int64_t left = one.max_stages;
    for (const Kind& kind : kinds) {
      for (std::int64_t stage = 0; stage < kind.stages && left > 0; ++stage, --left, share *= fade)
        speed += stage_speed(kind) * share;
    }
    const Cost time = WorkBound::time_at(prices, space.spans->num_blocks(), speed, one.micro * one.count);
    bound = std::max(bound, static_cast<Cost>(static_cast<double>(time) * (1 - 1e-9)));
  }
  return bound;
}

void set_bounds(const SearchSpace& space, std::vector<Combination>& combinations) {
  std::map<std::int64_t, std::shared_ptr<const WorkBound>> of_micro;
  const int num_blocks = space.spans->num_blocks();
  const bool free_batch = space.spans->cost().facts().static_batch() == 0;
  for (Combination& one : combinations) {
    std::shared_ptr<const WorkBound>& work = of_micro[one.micro];
    if (!work) work = std::make_shared<const WorkBound>(*space.spans, space.pools, one.micro);
    one.work = work;
    one.bound = work->least_time(num_blocks, usable_units(space, one), one.micro * one.count);
    if (!space.large || !free_batch) continue;
    one.bound = std::max(one.bound, ramp_bound(space, one));
    if (space.pools.size() == 1)
      one.bound = std::max(one.bound, fill_bound(space, one, one.compositions.front().total()));
  }
}

}  // namespace coxswain::planner
