#pragma once
// Small instances of Sailor's contest, a plain per-replica reading of its formulas, and all plans of an instance.
#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "common/json.h"
#include "planner/problems/sailor.h"
#include "planner/problems/sailor_model.h"

namespace coxswain::planner::sailor_test {

inline constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

/// GPUs "a" and "b" in zones "x" and "y"; the pools are what a test asks for. Links of constant speed unless changed.
inline SailorInstance make_instance(int num_layers, std::int64_t batch, std::vector<SailorPool> pools) {
  SailorInstance instance;
  instance.num_layers = num_layers;
  instance.global_batch = batch;
  instance.gpus = {{"a", 40 * kGib, 3600}, {"b", 40 * kGib, 1800}};
  instance.zones = {"x", "y"};
  instance.pools = std::move(pools);
  for (const int tp : {1, 2})
    instance.layers[tp].assign(static_cast<std::size_t>(num_layers), SailorLayer{1e6 / tp, 250e3, 1e6 / tp});
  for (const int gpu : {0, 1})
    for (const int tp : {1, 2})
      instance.profiles[{gpu, 1, tp}].assign(static_cast<std::size_t>(num_layers),
                                             SailorTimes{(gpu == 0 ? 1.0 : 2.0) / tp, 0.5 / tp});
  for (const SailorPool& from : instance.pools) {
    for (const SailorPool& to : instance.pools) {
      for (const int from_gpus : {1, 2})
        for (const int to_gpus : {1, 2})
          instance.links[{{from.zone, from.gpu, from_gpus}, {to.zone, to.gpu, to_gpus}}] = {0, 0, 1};
      instance.usd_per_gb[{from.zone, to.zone}] = from.zone == to.zone ? 0 : 10;
    }
  }
  return instance;
}

using Seat = std::pair<int, int>;  // pool, tp

inline double naive_send(const SailorInstance& instance, double bytes, Seat from, Seat to) {
  const SailorPool &a = instance.pools[static_cast<std::size_t>(from.first)],
                   &b = instance.pools[static_cast<std::size_t>(to.first)];
  const SailorCurve& c = instance.links.at({{a.zone, a.gpu, from.second}, {b.zone, b.gpu, to.second}});
  const double x = std::log2(bytes / 1e6);
  return bytes / 1e9 / (c.c2 * x * x + c.c1 * x + c.c0);
}

/// Seconds and dollars, replica by replica; seconds < 0: the plan is not valid.
inline std::pair<double, double> naive_estimate(const SailorInstance& instance, const SailorPlan& plan) {
  std::vector<std::vector<Seat>> seats;
  std::vector<int> used(instance.pools.size(), 0);
  for (const SailorStage& stage : plan.stages) {
    seats.emplace_back();
    for (const SailorReplicas& run : stage.replicas) {
      seats.back().insert(seats.back().end(), static_cast<std::size_t>(run.count), Seat{run.pool, run.tp});
      used[static_cast<std::size_t>(run.pool)] += run.count * run.tp;
    }
  }
  const std::size_t stages = seats.size(), replicas = seats[0].size();
  for (std::size_t p = 0; p < used.size(); ++p)
    if (used[p] > instance.pools[p].count) return {-1, 0};
  const double micro_batches =
      std::ceil(static_cast<double>(instance.global_batch) / (plan.micro_batch * static_cast<double>(replicas)));
  const auto output = [&](int layer) {
    return instance.layers.at(1)[static_cast<std::size_t>(layer)]->output_numbers * 4 * plan.micro_batch;
  };
  std::vector<double> forward(stages, 0), backward(stages, 0), compute(stages, 0);
  double update = 0, sync = 0, dollars = 0, rate = 0;
  for (std::size_t i = 0; i < stages; ++i) {
    const SailorStage& stage = plan.stages[i];
    double weights = 0;
    int degree = 4;
    for (const Seat& seat : seats[i]) degree = std::min(degree, seat.second);
    for (int l = stage.first; l < stage.end; ++l)
      weights += 4 * instance.layers.at(1)[static_cast<std::size_t>(l)]->parameters;
    for (std::size_t j = 0; j < replicas; ++j) {
      const auto [pool, tp] = seats[i][j];
      const SailorPool& own = instance.pools[static_cast<std::size_t>(pool)];
      const auto& profile = instance.profiles.at({own.gpu, plan.micro_batch, tp});
      double seconds = 0, parameters = 0, activations = 0;
      for (int l = stage.first; l < stage.end; ++l) {
        seconds += profile[static_cast<std::size_t>(l)]->compute_seconds;
        parameters += instance.layers.at(tp)[static_cast<std::size_t>(l)]->parameters;
        activations += instance.layers.at(tp)[static_cast<std::size_t>(l)]->activation_numbers;
      }
      const double bytes = 24 * parameters + 4 * activations * plan.micro_batch * static_cast<double>(stages - i) +
                           (tp == 1 ? 2e9 : 3e9);
      if (bytes > instance.gpus[static_cast<std::size_t>(own.gpu)].memory_bytes) return {-1, 0};
      compute[i] = std::max(compute[i], seconds);
      update = std::max(update, profile[static_cast<std::size_t>(stage.first)]->update_seconds);
      rate += tp * instance.gpus[static_cast<std::size_t>(own.gpu)].usd_per_hour / 3600;
      const auto price = [&](Seat to) {
        return instance.usd_per_gb.at({own.zone, instance.pools[static_cast<std::size_t>(to.first)].zone}) / 1e9;
      };
      if (i + 1 < stages) {
        forward[i] = std::max(forward[i], naive_send(instance, output(stage.end - 1), seats[i][j], seats[i + 1][j]));
        dollars += micro_batches * price(seats[i + 1][j]) * output(stage.end - 1);
      }
      if (i > 0) {
        backward[i] = std::max(backward[i], naive_send(instance, output(stage.first), seats[i][j], seats[i - 1][j]));
        dollars += micro_batches * price(seats[i - 1][j]) * output(stage.first - 1);
      }
      dollars += price(seats[i][(j + 1) % replicas]) * weights * 2 * static_cast<double>(replicas - 1) /
                 static_cast<double>(replicas);
      if (j + 1 == replicas) continue;
      double ring = 0;
      for (double left = weights / degree; left > 0; left -= 500e6)
        ring += 2 * static_cast<double>(replicas - 1) *
                naive_send(instance, std::min(left, 500e6) / static_cast<double>(replicas), {pool, 1},
                           {seats[i][j + 1].first, 1});
      sync = std::max(sync, ring);
    }
  }
  double slowest = 0, sum = 0;
  for (std::size_t i = 0; i < stages; ++i) {
    double transfer = forward[i] + backward[i];
    if (i + 1 == stages) transfer = 2 * backward[i];
    if (i == 0) transfer = stages <= 3 ? forward[i] : 2 * forward[i];
    slowest = std::max(slowest, compute[i] + transfer);
    sum += compute[i] + transfer;
  }
  const double seconds = (micro_batches - 1) * slowest + sum + update + sync;
  return {seconds, dollars + seconds * rate};
}

/// Every plan: cuts, and for each stage counts of (pool, tp) that sum to D, equal ones side by side in both orders.
class AllPlans {
 public:
  AllPlans(const SailorInstance& instance, bool strict) : instance_(instance), strict_(strict) {
    for (std::size_t p = 0; p < instance.pools.size(); ++p)
      for (const int tp : {1, 2}) seats_.push_back({static_cast<int>(p), tp});
  }
  /// Least seconds (or dollars).
  double best() {
    int gpus = 0;
    for (const SailorPool& pool : instance_.pools) gpus += pool.count;
    for (int replicas = 1; replicas <= gpus; ++replicas) {
      if (strict_ && instance_.global_batch % replicas != 0) continue;
      SailorPlan plan{1, {}};
      add_stage(plan, replicas);
    }
    return best_;
  }

 private:
  void add_stage(SailorPlan& plan, int replicas) {
    const int first = plan.stages.empty() ? 0 : plan.stages.back().end;
    if (first == instance_.num_layers) {
      const auto [seconds, usd] = naive_estimate(instance_, plan);
      if (seconds < 0 || (instance_.max_usd_per_iteration && usd > *instance_.max_usd_per_iteration)) return;
      best_ = std::min(best_, instance_.minimise_cost ? usd : seconds);
      return;
    }
    for (int end = first + 1; end <= instance_.num_layers; ++end) {
      plan.stages.push_back({first, end, {}});
      add_replicas(plan, replicas, replicas, 0, 0);
      plan.stages.pop_back();
    }
  }
  /// At most two kinds in a stage.
  void add_replicas(SailorPlan& plan, int replicas, int left, unsigned taken, int kinds) {
    if (left == 0) return add_stage(plan, replicas);
    if (kinds == 2) return;
    for (std::size_t s = 0; s < seats_.size(); ++s) {
      if (taken >> s & 1U) continue;
      for (int count = kinds == 1 ? left : 1; count <= left; ++count) {
        plan.stages.back().replicas.push_back({seats_[s].first, seats_[s].second, count});
        add_replicas(plan, replicas, left - count, taken | 1U << s, kinds + 1);
        plan.stages.back().replicas.pop_back();
      }
    }
  }

  const SailorInstance& instance_;
  bool strict_;
  std::vector<Seat> seats_;
  double best_ = 1e300;
};

inline SailorInstance random_instance(std::mt19937& random, std::vector<SailorPool> pools) {
  std::uniform_real_distribution<double> part(0.5, 1.5);
  std::uniform_int_distribution<int> layers(2, 3), batch(4, 9);
  SailorInstance instance = make_instance(layers(random), batch(random), std::move(pools));
  for (auto& [key, profile] : instance.profiles)
    for (auto& times : profile) times->compute_seconds *= 0.05 * part(random);
  for (auto& [key, curve] : instance.links) curve = {0.001 * part(random), 0.01 * part(random), 0.1 * part(random)};
  // Half of the instances have room for only some of the stages on one GPU.
  for (SailorGpu& gpu : instance.gpus)
    if (random() % 2 == 0) gpu.memory_bytes = 3.03e9;
  return instance;
}

inline SailorTexts make_texts() {
  SailorTexts texts;
  texts.layers = "tp,layer_first,layer_last,parameters,output_floats,activation_floats\n1,0,2,5,6,7\n";
  texts.times =
      "gpu,microbatch,tp,layer_first,layer_last,forward_s,backward_s,update_s\na,1,1,0,2,0.25,0.5,0.125\nz,1,1,0,2,1,1,"
      "1\n";
  texts.network =
      "sender_zone,sender_gpu,sender_gpus,receiver_zone,receiver_gpu,receiver_gpus,c2,c1,c0\nx,a,1,x,a,1,1,2,3\n";
  texts.egress = "from_zone,to_zone,usd_per_gb\nx,x,0\n";
  texts.gpus = "gpu,memory_gib,gpus_per_node,usd_per_hour\na,40,4,3.5\n";
  return texts;
}

inline Json make_document() {
  return *parse_json(R"({"id": "tiny", "model": "m", "layers": 3, "global_batch": 8, "bytes_per_number": 4,
    "cluster": [{"gpu": "a", "zone": "x", "count": 4}], "objective": "throughput", "data": {}})");
}

}  // namespace coxswain::planner::sailor_test
