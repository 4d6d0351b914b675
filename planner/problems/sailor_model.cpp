#include "planner/problems/sailor_model.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace coxswain::planner {
namespace {

constexpr double kBytesPerNumber = 4, kStateBytesPerParameter = 24;
constexpr double kBucketBytes = 500e6;
constexpr double kGigabyte = 1e9, kMegabyte = 1e6, kSecondsPerHour = 3600;

double send(double bytes, const std::optional<SailorCurve>& curve) {
  if (bytes <= 0) return 0;
  if (!curve) return kNever;
  const double x = std::log2(bytes / kMegabyte);
  const double speed = curve->c2 * x * x + curve->c1 * x + curve->c0;
  return speed > 0 ? bytes / kGigabyte / speed : kNever;
}

std::vector<int> places(const std::vector<int>& values) {
  std::vector<int> place(values.empty() ? 1 : static_cast<std::size_t>(values.back()) + 1, -1);
  for (std::size_t i = 0; i < values.size(); ++i) place[static_cast<std::size_t>(values[i])] = static_cast<int>(i);
  return place;
}

int find_place(const std::vector<int>& place, int value) {
  return value < 0 || static_cast<std::size_t>(value) >= place.size() ? -1 : place[static_cast<std::size_t>(value)];
}

}  // namespace

int num_replicas(const SailorPlan& plan) {
  int count = 0;
  for (const SailorReplicas& replicas : plan.stages.front().replicas) count += replicas.count;
  return count;
}

SailorModel::SailorModel(const SailorInstance& instance) : instance_(instance) {
  std::set<int> degrees, micro_batches;
  for (const auto& [tp, rows] : instance.layers) degrees.insert(tp);
  for (const auto& [key, rows] : instance.profiles) {
    degrees.insert(key.tp);
    micro_batches.insert(key.micro_batch);
  }
  degrees_.assign(degrees.begin(), degrees.end());
  micro_batches_.assign(micro_batches.begin(), micro_batches.end());
  place_of_degree_ = places(degrees_);
  place_of_micro_batch_ = places(micro_batches_);

  const auto num_layers = static_cast<std::size_t>(instance.num_layers);
  for (const auto& layer : instance.layers.at(1)) output_numbers_.push_back(layer->output_numbers);
  for (const int tp : degrees_) {
    const auto rows = instance.layers.find(tp);
    Shard shard{{0}, {0}, {0}};
    for (std::size_t l = 0; l < num_layers; ++l) {
      const auto layer = rows == instance.layers.end() ? std::nullopt : rows->second[l];
      shard.parameters.push_back(shard.parameters.back() + (layer ? layer->parameters : 0));
      shard.activations.push_back(shard.activations.back() + (layer ? layer->activation_numbers : 0));
      shard.missing.push_back(shard.missing.back() + (layer ? 0 : 1));
    }
    shards_.push_back(std::move(shard));
  }
  for (const int micro_batch : micro_batches_) {
    for (std::size_t gpu = 0; gpu < instance.gpus.size(); ++gpu) {
      for (const int tp : degrees_) {
        const auto rows = instance.profiles.find({static_cast<int>(gpu), micro_batch, tp});
        Profile profile{{0}, {0}, {}};
        for (std::size_t l = 0; l < num_layers; ++l) {
          const auto times = rows == instance.profiles.end() ? std::nullopt : rows->second[l];
          profile.compute.push_back(profile.compute.back() + (times ? times->compute_seconds : 0));
          profile.missing.push_back(profile.missing.back() + (times ? 0 : 1));
          profile.update.push_back(times ? times->update_seconds : kNever);
        }
        profiles_.push_back(std::move(profile));
      }
    }
  }
  const auto find = [&](const SailorPool& from, int from_gpus, const SailorPool& to, int to_gpus) {
    const auto at = instance.links.find({{from.zone, from.gpu, from_gpus}, {to.zone, to.gpu, to_gpus}});
    return at == instance.links.end() ? std::nullopt : std::optional(at->second);
  };
  for (const SailorPool& from : instance.pools) {
    for (const SailorPool& to : instance.pools) {
      for (const int from_tp : degrees_)
        for (const int to_tp : degrees_) curves_.push_back(find(from, from_tp, to, to_tp));
      ring_curves_.push_back(find(from, 1, to, 1));
      const auto price = instance.usd_per_gb.find({from.zone, to.zone});
      usd_per_gb_.push_back(price == instance.usd_per_gb.end() ? kNever : price->second);
    }
  }
}

int SailorModel::degree_place(int tp) const { return find_place(place_of_degree_, tp); }

const std::optional<SailorCurve>& SailorModel::curve(int from_pool, int from_place, int to_pool, int to_place) const {
  const std::size_t degrees = degrees_.size(), pools = instance_.pools.size();
  const std::size_t pair = static_cast<std::size_t>(from_pool) * pools + static_cast<std::size_t>(to_pool);
  return curves_[(pair * degrees + static_cast<std::size_t>(from_place)) * degrees +
                 static_cast<std::size_t>(to_place)];
}

double SailorModel::send_seconds(double bytes, int from_pool, int from_tp, int to_pool, int to_tp) const {
  return send(bytes, curve(from_pool, degree_place(from_tp), to_pool, degree_place(to_tp)));
}

double SailorModel::all_reduce_seconds(double bytes, int num_replicas, int from_pool, int to_pool) const {
  if (num_replicas <= 1 || bytes <= 0) return 0;
  const auto& link =
      ring_curves_[static_cast<std::size_t>(from_pool) * instance_.pools.size() + static_cast<std::size_t>(to_pool)];
  const double steps = 2.0 * (num_replicas - 1);
  const double full = std::floor(bytes / kBucketBytes);
  double total = steps * send((bytes - full * kBucketBytes) / num_replicas, link);
  if (full > 0) total += full * steps * send(kBucketBytes / num_replicas, link);
  return total;
}

double SailorModel::memory_bytes(int tp, int micro_batch, int first, int end, int depth) const {
  const Shard& shard = shards_[static_cast<std::size_t>(degree_place(tp))];
  const auto a = static_cast<std::size_t>(first), b = static_cast<std::size_t>(end);
  return kStateBytesPerParameter * (shard.parameters[b] - shard.parameters[a]) +
         kBytesPerNumber * (shard.activations[b] - shard.activations[a]) * micro_batch * depth +
         (tp == 1 ? 2 : 3) * kGigabyte;
}

int SailorModel::max_depth(int gpu, int tp, int micro_batch, int first, int end) const {
  const double capacity = instance_.gpus[static_cast<std::size_t>(gpu)].memory_bytes;
  int depth = 0;
  while (depth < instance_.num_layers && memory_bytes(tp, micro_batch, first, end, depth + 1) <= capacity) ++depth;
  return depth;
}

const SailorModel::Profile* SailorModel::profile(int gpu, int tp, int micro_batch) const {
  const int batch = find_place(place_of_micro_batch_, micro_batch), degree = degree_place(tp);
  if (batch < 0 || degree < 0) return nullptr;
  const auto row = static_cast<std::size_t>(batch) * instance_.gpus.size() + static_cast<std::size_t>(gpu);
  return &profiles_[row * degrees_.size() + static_cast<std::size_t>(degree)];
}

double SailorModel::compute_seconds(int gpu, int tp, int micro_batch, int first, int end) const {
  const Profile* times = profile(gpu, tp, micro_batch);
  const auto a = static_cast<std::size_t>(first), b = static_cast<std::size_t>(end);
  if (times == nullptr || times->missing[b] != times->missing[a]) return kNever;
  const Shard& shard = shards_[static_cast<std::size_t>(degree_place(tp))];
  if (shard.missing[b] != shard.missing[a]) return kNever;
  return times->compute[b] - times->compute[a];
}

double SailorModel::update_seconds(int gpu, int tp, int micro_batch, int first) const {
  const Profile* times = profile(gpu, tp, micro_batch);
  return times == nullptr ? kNever : times->update[static_cast<std::size_t>(first)];
}

double SailorModel::output_bytes(int micro_batch, int layer) const {
  return output_numbers_[static_cast<std::size_t>(layer)] * kBytesPerNumber * micro_batch;
}

double SailorModel::parameter_bytes(int first, int end) const {
  const Shard& whole = shards_[static_cast<std::size_t>(degree_place(1))];
  return kBytesPerNumber *
         (whole.parameters[static_cast<std::size_t>(end)] - whole.parameters[static_cast<std::size_t>(first)]);
}

double SailorModel::usd_per_gb(int from_pool, int to_pool) const {
  return usd_per_gb_[static_cast<std::size_t>(from_pool) * instance_.pools.size() + static_cast<std::size_t>(to_pool)];
}

std::int64_t SailorModel::num_micro_batches(int micro_batch, std::int64_t num_replicas) const {
  const std::int64_t samples = micro_batch * num_replicas;
  return (instance_.global_batch + samples - 1) / samples;
}

/// What one pass over the stages collects.
struct SailorModel::Transfers {
  std::vector<double> forward, backward;  // A_i, G_i
  double sync_seconds = 0;
  double dollar_bytes = 0;  // bytes times dollars per 10^9 of them
  double traffic_seconds = 0;
  std::int64_t num_micro_batches = 1;
};

bool SailorModel::keeps_rules(const SailorPlan& plan) const {
  if (plan.stages.empty() || find_place(place_of_micro_batch_, plan.micro_batch) < 0) return false;
  const int replicas = num_replicas(plan), num_stages = static_cast<int>(plan.stages.size());
  std::vector<std::int64_t> used(instance_.pools.size(), 0);
  int layer = 0;
  for (int i = 0; i < num_stages; ++i) {
    const SailorStage& stage = plan.stages[static_cast<std::size_t>(i)];
    if (stage.first != layer || stage.end <= stage.first || stage.end > instance_.num_layers) return false;
    layer = stage.end;
    int count = 0;
    for (const SailorReplicas& run : stage.replicas) {
      if (run.count < 1 || degree_place(run.tp) < 0) return false;
      const SailorPool& pool = instance_.pools[static_cast<std::size_t>(run.pool)];
      if (compute_seconds(pool.gpu, run.tp, plan.micro_batch, stage.first, stage.end) == kNever) return false;
      const double bytes = memory_bytes(run.tp, plan.micro_batch, stage.first, stage.end, num_stages - i);
      if (bytes > instance_.gpus[static_cast<std::size_t>(pool.gpu)].memory_bytes) return false;
      used[static_cast<std::size_t>(run.pool)] += static_cast<std::int64_t>(run.tp) * run.count;
      count += run.count;
    }
    if (count != replicas || count == 0) return false;
  }
  for (std::size_t pool = 0; pool < used.size(); ++pool)
    if (used[pool] > instance_.pools[pool].count) return false;
  return layer == instance_.num_layers;
}

double SailorModel::gpu_usd_per_second(const SailorPlan& plan) const {
  double usd = 0;
  for (const SailorStage& stage : plan.stages) {
    for (const SailorReplicas& run : stage.replicas) {
      const int gpu = instance_.pools[static_cast<std::size_t>(run.pool)].gpu;
      usd += run.tp * run.count * instance_.gpus[static_cast<std::size_t>(gpu)].usd_per_hour / kSecondsPerHour;
    }
  }
  return usd;
}

void SailorModel::add_link(const SailorPlan& plan, std::size_t stage, Transfers& transfers) const {
  const SailorStage &here = plan.stages[stage], &next = plan.stages[stage + 1];
  const double output = output_bytes(plan.micro_batch, here.end - 1);
  const double gradient = output_bytes(plan.micro_batch, next.first);
  std::size_t i = 0, j = 0;
  int left_here = here.replicas[0].count, left_next = next.replicas[0].count;
  while (true) {
    const SailorReplicas &a = here.replicas[i], &b = next.replicas[j];
    const int count = std::min(left_here, left_next);
    const double forward = send_seconds(output, a.pool, a.tp, b.pool, b.tp);
    const double backward = send_seconds(gradient, b.pool, b.tp, a.pool, a.tp);
    transfers.forward[stage] = std::max(transfers.forward[stage], forward);
    transfers.backward[stage + 1] = std::max(transfers.backward[stage + 1], backward);
    transfers.traffic_seconds += count * (forward + backward);
    transfers.dollar_bytes += static_cast<double>(transfers.num_micro_batches) * output * count *
                              (usd_per_gb(a.pool, b.pool) + usd_per_gb(b.pool, a.pool));
    left_here -= count;
    left_next -= count;
    if (left_here == 0) {
      if (++i == here.replicas.size()) return;
      left_here = here.replicas[i].count;
    }
    if (left_next == 0) left_next = next.replicas[++j].count;
  }
}

void SailorModel::add_ring(const SailorPlan& plan, std::size_t stage, int num_replicas, Transfers& transfers) const {
  const SailorStage& here = plan.stages[stage];
  int degree = kMaxSailorSyncDegree;
  for (const SailorReplicas& run : here.replicas) degree = std::min(degree, run.tp);
  const double whole = parameter_bytes(here.first, here.end), shard = whole / degree;
  const double priced = whole * 2 * (num_replicas - 1) / num_replicas;
  const std::size_t runs = here.replicas.size();
  for (std::size_t i = 0; i < runs; ++i) {
    const SailorReplicas &run = here.replicas[i], &next = here.replicas[(i + 1) % runs];
    const double inside = run.count > 1 ? all_reduce_seconds(shard, num_replicas, run.pool, run.pool) : 0;
    const double across = i + 1 < runs ? all_reduce_seconds(shard, num_replicas, run.pool, next.pool) : 0;
    transfers.sync_seconds = std::max({transfers.sync_seconds, inside, across});
    transfers.traffic_seconds += (run.count - 1) * inside + across;
    transfers.dollar_bytes += priced * usd_per_gb(run.pool, next.pool);
    if (run.count > 1) transfers.dollar_bytes += priced * (run.count - 1) * usd_per_gb(run.pool, run.pool);
  }
}

std::optional<SailorEstimate> SailorModel::estimate(const SailorPlan& plan) const {
  if (!keeps_rules(plan)) return std::nullopt;
  const int replicas = num_replicas(plan);
  const std::size_t num_stages = plan.stages.size();
  Transfers transfers{std::vector<double>(num_stages, 0),           std::vector<double>(num_stages, 0), 0, 0, 0,
                      num_micro_batches(plan.micro_batch, replicas)};
  double slowest = 0, sum = 0, update = 0;
  for (std::size_t i = 0; i < num_stages; ++i) {
    if (i + 1 < num_stages) add_link(plan, i, transfers);
    add_ring(plan, i, replicas, transfers);
  }
  for (std::size_t i = 0; i < num_stages; ++i) {
    const SailorStage& stage = plan.stages[i];
    double compute = 0, transfer = transfers.forward[i] + transfers.backward[i];  // (7), a stage inside
    if (i + 1 == num_stages) transfer = 2 * transfers.backward[i];
    if (i == 0) transfer = num_stages <= 3 ? transfers.forward[i] : 2 * transfers.forward[i];
    for (const SailorReplicas& run : stage.replicas) {
      const int gpu = instance_.pools[static_cast<std::size_t>(run.pool)].gpu;
      compute = std::max(compute, compute_seconds(gpu, run.tp, plan.micro_batch, stage.first, stage.end));
      update = std::max(update, update_seconds(gpu, run.tp, plan.micro_batch, stage.first));
    }
    slowest = std::max(slowest, compute + transfer);
    sum += compute + transfer;
  }
  const double pipeline = static_cast<double>(transfers.num_micro_batches - 1) * slowest + sum + update;  // (8)
  SailorEstimate result;
  result.seconds = pipeline + transfers.sync_seconds;  // (10)
  result.usd = transfers.dollar_bytes / kGigabyte + result.seconds * gpu_usd_per_second(plan);
  result.traffic_seconds = transfers.traffic_seconds / replicas;
  if (!(result.seconds < kNever) || !(result.usd < kNever)) return std::nullopt;
  return result;
}

bool SailorModel::within_limits(const SailorEstimate& estimate) const {
  return !(instance_.max_usd_per_iteration && estimate.usd > *instance_.max_usd_per_iteration) &&
         !(instance_.min_iterations_per_second && 1 / estimate.seconds < *instance_.min_iterations_per_second);
}

}  // namespace coxswain::planner
