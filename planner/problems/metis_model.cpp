#include "planner/problems/metis_model.h"

#include <algorithm>

namespace coxswain::planner {
namespace {

/// A value at `batch` on the line through two points.
double on_line(double at, double first, double value_first, double last, double value_last) {
  return value_first + (value_last - value_first) * (at - first) / (last - first);
}

void add_layer(std::vector<double>& sums, double value) { sums.push_back(sums.back() + value); }

}  // namespace

MetisModel::MetisModel(const MetisInstance& instance) : instance_(instance), parameters_before_{0} {
  int host = 0;
  for (const MetisType& type : instance.types) {
    hosts_.emplace_back();
    for (const int devices : type.hosts)
      hosts_.back().insert(hosts_.back().end(), static_cast<std::size_t>(devices), host++);
  }
  for (const double bytes : instance.parameter_bytes) add_layer(parameters_before_, bytes);
}

std::optional<MetisTimes> MetisModel::times(MetisShard shard, std::int64_t batch) const {
  const auto found = instance_.points.find(shard);
  if (found == instance_.points.end()) return std::nullopt;
  const auto& points = found->second;
  const auto above = points.lower_bound(batch);
  if (above == points.end()) return std::nullopt;
  const bool measured = above->first == batch;
  if (!measured && above == points.begin()) return std::nullopt;
  const auto below = measured ? above : std::prev(above);
  const auto& [b0, p0] = *below;
  const auto& [b1, p1] = *above;
  const auto &least = *points.begin(), &most = *points.rbegin();
  const auto b = static_cast<double>(batch), b_first = static_cast<double>(b0), b_last = static_cast<double>(b1);
  MetisTimes times{{0}, {0}, {0}, {0}, {0}, p1.sync_ms, measured};
  if (!measured) times.sync_ms = on_line(b, b_first, p0.sync_ms, b_last, p1.sync_ms);
  for (std::size_t l = 0; l < p1.layer_ms.size(); ++l) {
    const double t0 = p0.layer_ms[l], t1 = p1.layer_ms[l];
    const double ms = measured ? t1 : on_line(b, b_first, t0, b_last, t1);
    double low = std::max(t0, b / b_last * t1), high = std::min(t1, b / b_first * t0);
    if (low > high) {
      low = std::min(t0, t1);
      high = std::max(t0, t1);
    }
    add_layer(times.ms, ms);
    add_layer(times.low_ms, std::min(low, ms));
    add_layer(times.high_ms, std::max(high, ms));
    add_layer(times.mb, measured ? p1.layer_mb[l] : on_line(b, b_first, p0.layer_mb[l], b_last, p1.layer_mb[l]));
    const double slope = least.first == most.first ? 0
                                                   : (most.second.layer_mb[l] - least.second.layer_mb[l]) /
                                                         static_cast<double>(most.first - least.first);
    add_layer(times.growth_mb, std::max(0.0, slope) * b);
  }
  return times;
}

int MetisModel::num_devices(int type) const { return static_cast<int>(hosts_[static_cast<std::size_t>(type)].size()); }

int MetisModel::host_of(int type, int device) const {
  return hosts_[static_cast<std::size_t>(type)][static_cast<std::size_t>(device)];
}

int MetisModel::find_room(int type, int tp, int count, int from) const {
  for (int first = from; first + tp * count <= num_devices(type); ++first) {
    bool inside = true;
    for (int group = first; inside && group < first + tp * count; group += tp)
      inside = host_of(type, group) == host_of(type, group + tp - 1);
    if (inside) return first;
  }
  return -1;
}

int MetisModel::common_host(const MetisStage& stage) const {
  if (stage.replicas.size() != 1) return -1;
  const MetisReplicas& replicas = stage.replicas.front();
  const int host = host_of(replicas.type, replicas.first_device);
  return host == host_of(replicas.type, replicas.first_device + replicas.count * stage.tp - 1) ? host : -1;
}

double MetisModel::network_bytes_per_ms(const MetisStage& stage) const {
  double least = instance_.types[static_cast<std::size_t>(stage.replicas.front().type)].network_bytes_per_ms;
  for (const MetisReplicas& each : stage.replicas)
    least = std::min(least, instance_.types[static_cast<std::size_t>(each.type)].network_bytes_per_ms);
  return least;
}

double MetisModel::sync_ms(const MetisStage& stage) const {
  double sync = 0;
  for (const MetisReplicas& each : stage.replicas)
    sync = std::max(sync, times({each.type, stage.tp}, each.samples)->sync_ms);
  return sync;
}

double MetisModel::update_ms(const MetisStage& stage) const {
  double slowest = 0;
  for (const MetisReplicas& each : stage.replicas)
    slowest = std::max(slowest, instance_.optimizer_ms[static_cast<std::size_t>(each.type)]);
  return 2 * slowest / stage.tp * (stage.end - stage.first) / instance_.num_layers;
}

double MetisModel::reduce_ms(const MetisStage& stage) const {
  int replicas = 0;
  for (const MetisReplicas& each : stage.replicas) replicas += each.count;
  if (replicas == 1) return 0;
  const double bytes = (parameters_before_[static_cast<std::size_t>(stage.end)] -
                        parameters_before_[static_cast<std::size_t>(stage.first)]) /
                       stage.tp;
  const double bandwidth =
      common_host(stage) >= 0 ? instance_.types[static_cast<std::size_t>(stage.replicas.front().type)].host_bytes_per_ms
                              : network_bytes_per_ms(stage);
  return 2.0 * (replicas - 1) / replicas * bytes / bandwidth;
}

double MetisModel::cut_ms(const MetisStage& stage, const MetisStage& next) const {
  std::int64_t samples = 0;
  for (const MetisReplicas& each : stage.replicas) samples = std::max(samples, each.samples);
  const bool before_last = stage.end == instance_.num_layers - 1;
  const double numbers = static_cast<double>(samples) * static_cast<double>(instance_.sequence) *
                         static_cast<double>(before_last ? instance_.vocabulary : instance_.hidden) /
                         (before_last ? stage.tp : 1);
  const int host = common_host(stage);
  const bool inside = host >= 0 && host == common_host(next);
  return numbers / (inside ? instance_.types[static_cast<std::size_t>(stage.replicas.front().type)].host_bytes_per_ms
                           : std::min(network_bytes_per_ms(stage), network_bytes_per_ms(next)));
}

bool MetisModel::keeps_rules(const MetisPlan& plan) const {
  if (plan.micro_batches < 1 || instance_.global_batch % plan.micro_batches != 0 || plan.stages.empty()) return false;
  std::vector<std::vector<char>> used;
  for (const auto& hosts : hosts_) used.emplace_back(hosts.size(), 0);
  int layer = 0;
  for (const MetisStage& stage : plan.stages) {
    if (stage.first != layer || stage.end <= layer || stage.replicas.empty()) return false;
    layer = stage.end;
    std::int64_t samples = 0;
    for (const MetisReplicas& each : stage.replicas) {
      samples += each.samples * each.count;
      if (each.first_device < 0 || find_room(each.type, stage.tp, each.count, each.first_device) != each.first_device ||
          !times({each.type, stage.tp}, each.samples))
        return false;
      for (int device = each.first_device; device < each.first_device + each.count * stage.tp; ++device) {
        char& taken = used[static_cast<std::size_t>(each.type)][static_cast<std::size_t>(device)];
        if (taken != 0) return false;
        taken = 1;
      }
    }
    if (samples * plan.micro_batches != instance_.global_batch) return false;
  }
  return layer == instance_.num_layers;
}

std::optional<MetisEstimate> MetisModel::estimate(const MetisPlan& plan) const {
  if (!keeps_rules(plan)) return std::nullopt;
  const auto m = static_cast<double>(plan.micro_batches);
  const int num_stages = static_cast<int>(plan.stages.size());
  MetisEstimate slowest, sum;
  double update = 0, reduce = 0, cuts = 0;
  for (int i = 0; i < num_stages; ++i) {
    const MetisStage& stage = plan.stages[static_cast<std::size_t>(i)];
    const auto first = static_cast<std::size_t>(stage.first), end = static_cast<std::size_t>(stage.end);
    const double in_flight = static_cast<double>(std::min<std::int64_t>(plan.micro_batches, num_stages - i));
    MetisEstimate time;
    for (const MetisReplicas& each : stage.replicas) {
      const MetisTimes times = *this->times({each.type, stage.tp}, each.samples);
      time.ms = std::max(time.ms, times.ms[end] - times.ms[first]);
      time.low_ms = std::max(time.low_ms, times.low_ms[end] - times.low_ms[first]);
      time.high_ms = std::max(time.high_ms, times.high_ms[end] - times.high_ms[first]);
      const double mb =
          times.mb[end] - times.mb[first] + (in_flight - 1) * (times.growth_mb[end] - times.growth_mb[first]);
      if (mb > instance_.types[static_cast<std::size_t>(each.type)].memory_mb) return std::nullopt;
    }
    for (const auto part : {&MetisEstimate::ms, &MetisEstimate::low_ms, &MetisEstimate::high_ms}) {
      slowest.*part = std::max(slowest.*part, time.*part);
      sum.*part += time.*part;
    }
    update = std::max(update, update_ms(stage));
    reduce = std::max(reduce, reduce_ms(stage));
    if (i + 1 < num_stages) cuts += cut_ms(stage, plan.stages[static_cast<std::size_t>(i) + 1]);
  }
  const double rest = m * (sync_ms(plan.stages.back()) + instance_.generator_ms) + update + reduce + cuts;
  MetisEstimate result;
  for (const auto part : {&MetisEstimate::ms, &MetisEstimate::low_ms, &MetisEstimate::high_ms})
    result.*part = (m - 1) * slowest.*part + sum.*part + rest;
  return result;
}

}  // namespace coxswain::planner
