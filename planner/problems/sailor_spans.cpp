#include "planner/problems/sailor_spans.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace coxswain::planner {
namespace {

constexpr double kSecondsPerHour = 3600, kGigabyte = 1e9;

/// Two zones are of one region when the link between them has at least this share of the slower one's inner speed.
constexpr double kLikeSpeed = 0.5;
constexpr double kProbeBytes = 100e6;

Cost to_ticks(double seconds) { return seconds < kNever ? std::llround(seconds * kSailorTicks) : kNoCost; }

Cost plus(Cost a, Cost b) { return a == kNoCost || b == kNoCost ? kNoCost : a + b; }

/// The fastest link of a zone pair, over the GPU types there.
double probe_seconds(const SailorModel& model, int from_zone, int to_zone) {
  const auto& pools = model.instance().pools;
  double best = kNever;
  for (std::size_t a = 0; a < pools.size(); ++a)
    for (std::size_t b = 0; b < pools.size(); ++b)
      if (pools[a].zone == from_zone && pools[b].zone == to_zone)
        best = std::min(best, model.send_seconds(kProbeBytes, static_cast<int>(a), 1, static_cast<int>(b), 1));
  return best;
}

/// The region of each zone, named by its first zone.
std::vector<int> find_regions(const SailorModel& model) {
  const auto num_zones = model.instance().zones.size();
  std::vector<int> region(num_zones);
  std::iota(region.begin(), region.end(), 0);
  for (std::size_t a = 0; a < num_zones; ++a) {
    for (std::size_t b = 0; b < a; ++b) {
      const int from = static_cast<int>(a), to = static_cast<int>(b);
      const double inner = std::max(probe_seconds(model, from, from), probe_seconds(model, to, to));
      if (!(inner < kNever) || !(probe_seconds(model, from, to) * kLikeSpeed <= inner)) continue;
      const auto [low, high] = std::minmax(region[a], region[b]);
      std::replace(region.begin(), region.end(), static_cast<int>(high), static_cast<int>(low));
    }
  }
  return region;
}

/// Pools of one class: how many replicas each can take, and the link from one to another, row by row.
struct ZoneRing {
  std::vector<int> room;
  std::vector<double> seconds;
};

/// Whether `count` replicas can stand in a row that uses links of at most `limit` (they can, if they stand in fewer
/// pools than this looks at): the pools in reach of each other by such links are taken as one, and a row passes through
/// these from one to the next.
bool row_exists(const ZoneRing& ring, int count, double limit) {
  const std::size_t pools = ring.room.size();
  std::vector<char> reach(pools * pools);  // by one or more links
  for (std::size_t i = 0; i < reach.size(); ++i) reach[i] = ring.seconds[i] <= limit;
  for (std::size_t via = 0; via < pools; ++via)
    for (std::size_t a = 0; a < pools; ++a)
      for (std::size_t b = 0; b < pools; ++b)
        if (reach[a * pools + via] && reach[via * pools + b]) reach[a * pools + b] = 1;
  std::vector<int> longest(pools, 0), order(pools);
  std::iota(order.begin(), order.end(), 0);
  // What a pool reaches is reached by all before it, so fewer reached means later in the row; where the numbers are the
  // same, a pool that does not reach itself is the earlier one.
  const auto place_from_end = [&](int pool) {
    const auto row = static_cast<std::size_t>(pool) * pools;
    const auto begin = reach.begin() + static_cast<std::ptrdiff_t>(row);
    const bool itself = reach[row + static_cast<std::size_t>(pool)] != 0;
    return 2 * std::count(begin, begin + static_cast<std::ptrdiff_t>(pools), 1) + (itself ? 0 : 1);
  };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return place_from_end(a) < place_from_end(b); });
  for (const int at : order) {
    const auto a = static_cast<std::size_t>(at);
    int own = 0, rest = 0;
    for (std::size_t b = 0; b < pools; ++b) {
      const bool together = a == b || (reach[a * pools + b] && reach[b * pools + a]);
      if (together)
        own += reach[b * pools + b] ? ring.room[b] : std::min(1, ring.room[b]);
      else if (reach[a * pools + b])
        rest = std::max(rest, longest[b]);
    }
    longest[a] = own + rest;
    if (longest[a] >= count) return true;
  }
  return false;
}

/// The least slowest link of a row of `count` replicas, at least.
double slowest_link(const ZoneRing& ring, int count) {
  if (count == 1) return 0;
  if (ring.room.size() == 1) return ring.seconds[0];
  std::vector<double> limits = ring.seconds;
  std::sort(limits.begin(), limits.end());
  const auto found =
      std::partition_point(limits.begin(), limits.end(), [&](double limit) { return !row_exists(ring, count, limit); });
  return found == limits.end() ? kNever : *found;
}

}  // namespace

std::vector<SailorClass> make_classes(const SailorModel& model) {
  const std::vector<int> region = find_regions(model);
  const auto& pools = model.instance().pools;
  std::vector<SailorClass> classes;
  for (std::size_t i = 0; i < pools.size(); ++i) {
    auto known = std::find_if(classes.begin(), classes.end(), [&](const SailorClass& each) {
      const int zone = pools[static_cast<std::size_t>(each.pools[0])].zone;
      return each.gpu == pools[i].gpu &&
             region[static_cast<std::size_t>(zone)] == region[static_cast<std::size_t>(pools[i].zone)];
    });
    if (known == classes.end()) known = classes.insert(classes.end(), SailorClass{pools[i].gpu, {}, 0, 0});
    known->pools.push_back(static_cast<int>(i));
    known->count += pools[i].count;
    known->largest_pool = std::max(known->largest_pool, pools[i].count);
  }
  std::stable_sort(classes.begin(), classes.end(),
                   [](const SailorClass& a, const SailorClass& b) { return a.count > b.count; });
  if (classes.size() > kMaxSailorClasses) classes.resize(kMaxSailorClasses);
  return classes;
}

SailorSpans::SailorSpans(const SailorModel& model, const std::vector<SailorClass>& classes, int micro_batch)
    : model_(model), classes_(classes), micro_batch_(micro_batch), num_layers_(model.instance().num_layers) {
  for (std::size_t c = 0; c < classes.size(); ++c)
    for (const int tp : model.degrees()) groups_.push_back({static_cast<int>(c), tp});
  fill_links();
  fill_spans();
  fill_prices();
}

void SailorSpans::fill_links() {
  std::vector<double> sizes;
  for (int layer = 0; layer < num_layers_; ++layer) {
    const double size = model_.output_bytes(micro_batch_, layer);
    const auto at = std::find(sizes.begin(), sizes.end(), size);
    size_of_layer_.push_back(static_cast<int>(at - sizes.begin()));
    if (at == sizes.end()) sizes.push_back(size);
  }
  for (const double size : sizes) {
    for (const SailorGroup& from : groups_) {
      Cost least = kNoCost;
      for (const SailorGroup& to : groups_) {
        double best = kNever;
        for (const int a : classes_[static_cast<std::size_t>(from.class_index)].pools)
          for (const int b : classes_[static_cast<std::size_t>(to.class_index)].pools)
            best = std::min(best, model_.send_seconds(size, a, from.tp, b, to.tp));
        links_.push_back(to_ticks(best));
        least = std::min(least, links_.back());
      }
      least_.push_back(least);
    }
  }
}

void SailorSpans::fill_spans() {
  std::vector<Cost> least_layer(static_cast<std::size_t>(num_layers_), kNoCost);
  std::vector<double> least_layer_usd(static_cast<std::size_t>(num_layers_), kNever);
  std::vector<std::vector<double>> gpu_seconds(classes_.size(), least_layer_usd);  // by class, layer
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const int gpu = classes_[static_cast<std::size_t>(groups_[g].class_index)].gpu, tp = groups_[g].tp;
    for (int first = 0; first < num_layers_; ++first) {
      for (int end = 0; end <= num_layers_; ++end) {
        const double seconds = end > first ? model_.compute_seconds(gpu, tp, micro_batch_, first, end) : kNever;
        depth_.push_back(seconds < kNever ? model_.max_depth(gpu, tp, micro_batch_, first, end) : 0);
        compute_.push_back(depth_.back() > 0 ? to_ticks(seconds) : kNoCost);
        if (end != first + 1 || !(seconds < kNever)) continue;
        const auto layer = static_cast<std::size_t>(first);
        least_layer[layer] = std::min(least_layer[layer], to_ticks(seconds));
        least_layer_usd[layer] = std::min(least_layer_usd[layer], seconds * usd_per_second(static_cast<int>(g)));
        double& own = gpu_seconds[static_cast<std::size_t>(groups_[g].class_index)][layer];
        own = std::min(own, seconds * tp);
      }
      update_.push_back(to_ticks(model_.update_seconds(gpu, tp, micro_batch_, first)));
    }
  }
  least_compute_.push_back(0);
  least_usd_.push_back(0);
  for (std::size_t layer = 0; layer < least_layer.size(); ++layer) {
    least_compute_.push_back(plus(least_compute_.back(), least_layer[layer]));
    least_usd_.push_back(least_usd_.back() + least_layer_usd[layer]);
  }
  for (const auto& layers : gpu_seconds)
    least_gpu_seconds_.push_back(std::accumulate(layers.begin(), layers.end(), 0.0));
}

void SailorSpans::fill_prices() {
  const auto num_pools = static_cast<int>(model_.instance().pools.size());
  for (int a = 0; a < num_pools; ++a)
    for (int b = 0; b < num_pools; ++b) has_egress_ = has_egress_ || model_.usd_per_gb(a, b) > 0;
  for (const SailorClass& from : classes_) {
    for (const SailorClass& to : classes_) {
      double cheapest = kNever;
      for (const int a : from.pools)
        for (const int b : to.pools) cheapest = std::min(cheapest, model_.usd_per_gb(a, b) + model_.usd_per_gb(b, a));
      least_usd_per_gb_.push_back(cheapest);
    }
  }
}

double SailorSpans::usd_per_second(int group) const {
  const SailorGroup& each = groups_[static_cast<std::size_t>(group)];
  const int gpu = classes_[static_cast<std::size_t>(each.class_index)].gpu;
  return each.tp * model_.instance().gpus[static_cast<std::size_t>(gpu)].usd_per_hour / kSecondsPerHour;
}

std::size_t SailorSpans::place(int group, int first, int end) const {
  return (static_cast<std::size_t>(group) * static_cast<std::size_t>(num_layers_) + static_cast<std::size_t>(first)) *
             static_cast<std::size_t>(num_layers_ + 1) +
         static_cast<std::size_t>(end);
}

Cost SailorSpans::compute(SailorComposition composition, int first, int end) const {
  const Cost own = compute_[place(composition.first, first, end)];
  return composition.mixed() ? std::max(own, compute_[place(composition.second, first, end)]) : own;
}

int SailorSpans::max_depth(SailorComposition composition, int first, int end) const {
  const int own = depth_[place(composition.first, first, end)];
  return composition.mixed() ? std::min(own, depth_[place(composition.second, first, end)]) : own;
}

Cost SailorSpans::update(SailorComposition composition, int first) const {
  const auto at = [&](int group) {
    return update_[static_cast<std::size_t>(group) * static_cast<std::size_t>(num_layers_) +
                   static_cast<std::size_t>(first)];
  };
  return composition.mixed() ? std::max(at(composition.first), at(composition.second)) : at(composition.first);
}

Cost SailorSpans::least_send(SailorComposition from, int layer) const {
  const auto size = static_cast<std::size_t>(size_of_layer_[static_cast<std::size_t>(layer)]) * groups_.size();
  const Cost own = least_[size + static_cast<std::size_t>(from.first)];
  return from.mixed() ? std::max(own, least_[size + static_cast<std::size_t>(from.second)]) : own;
}

Cost SailorSpans::send_to_group(int from, int to, int layer) const {
  const auto size = static_cast<std::size_t>(size_of_layer_[static_cast<std::size_t>(layer)]);
  return links_[(size * groups_.size() + static_cast<std::size_t>(from)) * groups_.size() +
                static_cast<std::size_t>(to)];
}

Cost SailorSpans::send(SailorComposition from, SailorComposition to, int layer) const {
  Cost slowest = send_to_group(from.first, to.first, layer);
  if (from.mixed()) slowest = std::max(slowest, send_to_group(from.second, to.first, layer));
  if (to.mixed()) slowest = std::max(slowest, send_to_group(from.first, to.second, layer));
  return slowest;
}

Cost SailorSpans::least_round(SailorComposition composition, int first, int end) const {
  const Cost own = compute(composition, first, end);
  if (end == num_layers_)
    return first == 0 ? own : plus(own, plus(least_send(composition, first), least_send(composition, first)));
  const Cost forward = plus(own, least_send(composition, end - 1));
  return first == 0 ? forward : plus(forward, least_send(composition, first));
}

SailorRings::SailorRings(const SailorSpans& spans, int num_replicas)
    : spans_(spans), num_replicas_(num_replicas), least_{0} {
  const auto num_classes = static_cast<int>(spans.classes().size());
  for (int layer = 0; layer < spans.num_layers(); ++layer) {
    const double bytes = spans.model().parameter_bytes(layer, layer + 1) / kMaxSailorSyncDegree;
    double least = kNever;
    for (int a = 0; a < num_classes; ++a)
      for (int b = 0; b < num_classes; ++b)
        least = std::min(least, a == b ? inner_ring(bytes, a, 1) : cross_ring(bytes, a, b));
    least_.push_back(std::max(least_.back(), to_ticks(least)));
  }
}

double SailorRings::cross_ring(double bytes, int from_class, int to_class) const {
  double best = kNever;
  for (const int a : spans_.classes()[static_cast<std::size_t>(from_class)].pools)
    for (const int b : spans_.classes()[static_cast<std::size_t>(to_class)].pools)
      best = std::min(best, spans_.model().all_reduce_seconds(bytes, num_replicas_, a, b));
  return best;
}

double SailorRings::inner_ring(double bytes, int class_index, int tp) const {
  const std::vector<int>& pools = spans_.classes()[static_cast<std::size_t>(class_index)].pools;
  ZoneRing ring;
  for (const int a : pools) {
    const SailorPool& pool = spans_.model().instance().pools[static_cast<std::size_t>(a)];
    ring.room.push_back(pool.count / tp);
    for (const int b : pools) ring.seconds.push_back(spans_.model().all_reduce_seconds(bytes, num_replicas_, a, b));
  }
  return slowest_link(ring, num_replicas_);
}

Cost SailorRings::sync_of(SailorComposition composition, int first, int end) const {
  const SailorGroup& group = spans_.groups()[static_cast<std::size_t>(composition.first)];
  const double bytes = spans_.model().parameter_bytes(first, end);
  const int a = group.class_index;
  if (!composition.mixed()) return to_ticks(inner_ring(bytes / std::min(kMaxSailorSyncDegree, group.tp), a, group.tp));
  const SailorGroup& other = spans_.groups()[static_cast<std::size_t>(composition.second)];
  const double shard = bytes / std::min({kMaxSailorSyncDegree, group.tp, other.tp});
  const int b = other.class_index;
  // Each type is a run of its own. How long is not known here, so a run's links are those of a single pool at best.
  const double across = std::min(cross_ring(shard, a, b), cross_ring(shard, b, a));
  return to_ticks(std::max({across, cross_ring(shard, a, a), cross_ring(shard, b, b)}));
}

Cost SailorRings::sync(SailorComposition composition, int first, int end) {
  const auto [known, is_new] = known_.try_emplace({composition.first, composition.second, first, end}, 0);
  if (is_new) known->second = sync_of(composition, first, end);
  return known->second;
}

double SailorRings::egress_usd(SailorComposition composition, int first, int end) const {
  if (composition.mixed() || num_replicas_ == 1) return 0;
  const SailorGroup& group = spans_.groups()[static_cast<std::size_t>(composition.first)];
  const SailorClass& own = spans_.classes()[static_cast<std::size_t>(group.class_index)];
  const int needed = num_replicas_ * group.tp;
  if (needed <= own.largest_pool) return 0;
  double cheapest = kNever;
  for (const int a : own.pools)
    for (const int b : own.pools)
      if (a != b) cheapest = std::min(cheapest, spans_.model().usd_per_gb(a, b));
  // The ring closes, so it leaves each of its pools.
  const int num_pools = (needed + own.largest_pool - 1) / own.largest_pool;
  return num_pools * cheapest * spans_.model().parameter_bytes(first, end) / kGigabyte * 2 * (num_replicas_ - 1) /
         num_replicas_;
}

}  // namespace coxswain::planner
