#include "planner/combination_bounds.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <tuple>

#include "plan/schedule.h"

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

/// The fastest devices that stages of `one` can stand on.
Counts usable_devices(const SearchSpace& space, const Combination& one) {
  std::int64_t most = 0;  // of a stage
  Counts limit;           // of each pool by all stages
  for (const Composition& composition : *one.compositions) {
    most = std::max<std::int64_t>(most, composition.devices.total());
    for (std::size_t p = 0; p < space.pools.size(); ++p)
      limit.of[p] =
          std::max(limit.of[p], static_cast<std::int32_t>(std::min<std::int64_t>(
                                    space.devices.of[p], std::int64_t{composition.devices.of[p]} * one.max_stages)));
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

/// C24 and C27, where the backward is split: of forward and backward only the forward cannot overlap with the stages
/// before; the rest may be weights' parts of any micro-batch.
double unhidden_share(const SearchSpace& space, const Combination& one) {
  double share = 1.0;
  for (const Composition& composition : *one.compositions) {
    for (std::size_t p = 0; p < space.pools.size(); ++p) {
      if (composition.units.of[p] == 0) continue;
      const SampleTable& table = space.spans->table(composition.kind(space.pools, p),
                                                    std::max<std::int64_t>(1, one.micro / composition.replicas()));
      for (std::size_t b = 0; b < table.forward.size(); ++b) {
        // A stage that recomputes takes longer: its share is smaller.
        const Ticks all = 2 * table.forward[b] + table.backward[b];
        if (all > 0) share = std::min(share, static_cast<double>(table.forward[b]) / static_cast<double>(all));
      }
    }
  }
  return share;
}

/// Kinds of units that stages stand on, by pool.
std::vector<std::vector<UnitKind>> kinds_of(const SearchSpace& space, const std::vector<Composition>& compositions) {
  std::vector<std::vector<UnitKind>> kinds(space.pools.size());
  for (const Composition& composition : compositions) {
    for (std::size_t p = 0; p < kinds.size(); ++p) {
      if (composition.units.of[p] == 0) continue;
      const UnitKind kind = composition.kind(space.pools, p);
      if (std::find(kinds[p].begin(), kinds[p].end(), kind) == kinds[p].end()) kinds[p].push_back(kind);
    }
  }
  for (auto& of_pool : kinds) std::sort(of_pool.begin(), of_pool.end());
  return kinds;
}

/// Those of `one`, and C24's k of them; empty where a stage may stand on several pools.
std::pair<std::vector<PoolStages>, double> stage_kinds(const SearchSpace& space, const Combination& one) {
  std::vector<PoolStages> kinds;
  double k = 1.0;
  for (std::size_t p = 0; p < space.pools.size(); ++p) {
    std::int32_t devices = 0;
    for (const Composition& composition : *one.compositions) {
      if (composition.devices.of[p] == 0) continue;
      if (composition.devices.of[p] != composition.devices.total()) return {};
      devices = std::max(devices, composition.devices.of[p]);
      k = std::min(k, evenness(space, composition.kind(space.pools, p), one.micro, composition.replicas()));
    }
    if (devices > 0) kinds.push_back({p, devices, (space.devices.of[p] + devices - 1) / devices});
  }
  return {kinds, k};
}

/// Time at the speed of all stages, the fastest first: of each its share, 1 of the first `full` and then `fade` of that
/// of the one before.
Cost ramp_time(const SearchSpace& space, const Combination& one, std::vector<PoolStages> kinds, double fade, int full) {
  Cost bound = 0;
  for (const WorkBound::Prices& prices : one.work->prices()) {
    const auto stage_speed = [&](const PoolStages& kind) { return kind.devices * prices.speed[kind.pool]; };
    std::stable_sort(kinds.begin(), kinds.end(),
                     [&](const PoolStages& a, const PoolStages& b) { return stage_speed(a) > stage_speed(b); });
    double speed = 0, share = 1;
    std::int64_t at = 0;
    for (const PoolStages& kind : kinds) {
      for (std::int64_t stage = 0; stage < kind.stages && at < one.max_stages; ++stage, ++at) {
        if (at >= full) share *= fade;
        speed += stage_speed(kind) * share;
      }
    }
    const Cost time = WorkBound::time_at(prices, space.spans->num_blocks(), speed, one.micro * one.count);
    bound = std::max(bound, static_cast<Cost>(static_cast<double>(time) * (1 - 1e-9)));
  }
  return bound;
}

/// Whether first chunks, but the first stage's, have no less work than the others: blocks are alike, but one at the
/// begin and two at the end, which take no longer. (Those of the end are no first chunk's: a chunk of each stage
/// follows it.)
bool even_but_begin(const SearchSpace& space, const Combination& one, std::pair<int, int> run) {
  const int first = run.first, end = run.second;
  const int num_blocks = space.spans->num_blocks();
  if (end - first < 2 || first > 1 || num_blocks - end > 2) return false;
  for (const Composition& composition : *one.compositions) {
    for (std::size_t p = 0; p < space.pools.size(); ++p) {
      if (composition.units.of[p] == 0) continue;
      const SampleTable& table = space.spans->table(composition.kind(space.pools, p),
                                                    std::max<std::int64_t>(1, one.micro / composition.replicas()));
      const auto time = [&](int block) {
        return table.forward[static_cast<std::size_t>(block)] + table.backward[static_cast<std::size_t>(block)];
      };
      for (int block = end; block < num_blocks; ++block) {
        if (time(block) > time(first)) return false;
      }
    }
  }
  return true;
}

}  // namespace

FamilyBounds::FamilyBounds(const SearchSpace& space, const Combination& one, std::pair<int, int> run) : space_(space) {
  std::tie(kinds_, even_) = stage_kinds(space, one);
  const auto splits = [](const auto& schedules) {
    return std::any_of(schedules.begin(), schedules.end(), plan::splits_backward);
  };
  if (!kinds_.empty() && (splits(space.schedules) || splits(space.chunked_schedules)))
    unhidden_ = unhidden_share(space, one);
  begins_evenly_ = !space.chunked_schedules.empty() && !kinds_.empty() && even_but_begin(space, one, run);
}

double FamilyBounds::unhidden(plan::ScheduleKind schedule) const {
  return plan::splits_backward(schedule) ? unhidden_ : 1.0;
}

Cost FamilyBounds::fill(const Combination& one) const {
  const Composition& composition = one.compositions->front();
  const std::int64_t replicas = composition.replicas();
  const SampleTable& most =
      space_.spans->table(composition.kind(space_.pools, 0), (one.micro + replicas - 1) / replicas);
  const double k = even_ * unhidden(one.schedule);
  const Cost all = most.forward_sum.back() + most.backward_sum.back();
  const double filled = 1.0 - std::pow(1.0 - k / static_cast<double>(one.count), one.max_stages);
  return std::max(one.count * (all / one.max_stages),
                  static_cast<Cost>(k * static_cast<double>(all) / filled * (1 - 1e-9)));
}

Cost FamilyBounds::ramp(const Combination& one) const {
  if (kinds_.empty()) return 0;
  const double fade = 1.0 - even_ * unhidden(one.schedule) / static_cast<double>(one.count);
  return ramp_time(space_, one, kinds_, fade, 1);
}

Cost FamilyBounds::chunked_ramp(const Combination& one) const {
  if (!begins_evenly_) return 0;
  double passed = 1.0;
  for (const plan::ScheduleKind kind : space_.chunked_schedules)
    passed = std::min(passed, unhidden(kind) / (plan::splits_backward(kind) ? 2 : kMaxChunks));
  const double fade = 1.0 - even_ * passed / static_cast<double>(one.count);
  return ramp_time(space_, one, kinds_, fade, 2);
}

std::pair<int, int> longest_run(const SpanCosts& spans) {
  const cost_model::ModelFacts& facts = spans.cost().facts();
  std::pair<int, int> longest{0, 0};
  if (!spans.cost().costs_by_signature()) return longest;
  for (int first = 0; first < facts.num_blocks();) {
    int end = first + 1;
    while (end < facts.num_blocks() && facts.signature_of(end) == facts.signature_of(first)) ++end;
    if (end - first > longest.second - longest.first) longest = {first, end};
    first = end;
  }
  return longest;
}

void set_bounds(const SearchSpace& space, std::span<Combination> combinations) {
  if (combinations.empty()) return;
  const int num_blocks = space.spans->num_blocks();
  const bool free_batch = space.spans->cost().facts().static_batch() == 0;
  const auto kinds = kinds_of(space, *combinations.front().compositions);
  const std::pair run = longest_run(*space.spans);
  std::map<std::int64_t, std::shared_ptr<const WorkBound>> work_of_micro;
  std::map<std::int64_t, FamilyBounds> bounds_of_micro;
  for (Combination& one : combinations) {
    std::shared_ptr<const WorkBound>& work = work_of_micro[one.micro];
    if (!work) work = space.bounds->get(*space.spans, kinds, one.micro, space.large);
    one.work = work;
    one.bound = one.chunked_bound = work->least_time(num_blocks, usable_devices(space, one), one.micro * one.count);
    if (!space.large || !free_batch) continue;
    auto found = bounds_of_micro.find(one.micro);
    if (found == bounds_of_micro.end()) found = bounds_of_micro.emplace(one.micro, FamilyBounds(space, one, run)).first;
    const FamilyBounds& bounds = found->second;
    one.chunked_bound = std::max(one.bound, bounds.chunked_ramp(one));
    one.bound = std::max(one.bound, bounds.ramp(one));
    if (space.pools.size() == 1) one.bound = std::max(one.bound, bounds.fill(one));
  }
}

Cost work_of_space(const SearchSpace& space) {
  std::vector<std::vector<UnitKind>> kinds;
  for (const Pool& pool : space.pools) {
    kinds.emplace_back();
    const std::int64_t of_class = cluster::num_devices(space.request->cost->resources(), pool.device_class);
    for (const Axes axes : space.axes[static_cast<std::size_t>(pool.device_class)]) {
      for (const int expert : space.experts)
        if (std::int64_t{expert} * axes.size() <= of_class) kinds.back().push_back({pool.device_class, axes, expert});
    }
  }
  // The largest micro-batch has the best rates of all.
  Cost least = kNoCost;
  for (const std::int64_t micro : space.micros) {
    const WorkBound work(*space.spans, kinds, micro, space.large);
    least = std::min(least, work.least_time(space.spans->num_blocks(), space.devices, space.request->global_batch));
  }
  return least;
}

}  // namespace coxswain::planner
