#include "planner/problems/galvatron_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace coxswain::planner {
namespace {

constexpr double kMb = 1024 * 1024;
constexpr double kMsPerSecond = 1000;
constexpr double kContextMb = 1024;  // formula 10

template <class Key>
const double* find(const std::map<Key, double>& table, const Key& key) {
  const auto found = table.find(key);
  return found == table.end() ? nullptr : &found->second;
}

std::int64_t samples(const GalvatronInstance& instance, const GalvatronSetting& setting,
                     const GalvatronStrategy& strategy) {
  return instance.global_batch / setting.chunks / strategy.dp;
}

double message_mb(const GalvatronInstance& instance, std::int64_t samples) {
  return static_cast<double>(samples * instance.sequence * instance.hidden * 2) / kMb;
}

/// Formula 1.
std::optional<double> message_ms(const std::map<int, GalvatronMessages>& tables, int degree, double size_mb) {
  const auto table = tables.find(degree);
  if (table == tables.end()) return std::nullopt;
  char text[32];
  std::snprintf(text, sizeof text, "%g", size_mb);
  if (const double* point = find(table->second.points, std::string(text))) return *point;
  return table->second.line.slope * size_mb + table->second.line.intercept;
}

/// Formula 3.
const double* gradient_rate(const GalvatronInstance& instance, const GalvatronStrategy& strategy) {
  return find(instance.all_reduce_ms_per_mb,
              std::to_string(strategy.dp * strategy.sp) + (strategy.tp > 1 ? "_0" : "_1"));
}

/// Formula 11.
double sharded_part(const GalvatronSetting& setting, const GalvatronStrategy& strategy) {
  const double each = 1.0 / (strategy.dp * strategy.sp) + 0.003;
  const double growth = setting.chunks == 1 ? 1 : 5.0 / 4;
  if (strategy.zero == 3) return each * growth;
  return strategy.zero == 2 ? (7.0 / 8 * each + 1.0 / 8) * growth : 1.0;
}

struct EndPart {
  const GalvatronEnd* table = nullptr;  // none: an inner stage
  double share = 1;
  int messages = 2;
};

EndPart end_part(const GalvatronInstance& instance, const GalvatronSetting& setting, int stage) {
  if (setting.pp == 1) return {&instance.whole, 1.0, 2};
  if (stage == 0) return {&instance.first, 0.5, 1};
  if (stage == setting.pp - 1) return {&instance.last, 0.5, 1};
  return {};
}

}  // namespace

std::vector<GalvatronStrategy> list_strategies(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                               bool with_recompute) {
  std::vector<GalvatronStrategy> result;
  const int width = instance.gpus / setting.pp;
  const std::int64_t chunk = instance.global_batch / setting.chunks;
  for (int degree = 1; degree <= std::min(width, instance.max_degree); degree *= 2) {
    const int dp = width / degree;
    if (chunk % dp != 0) continue;
    for (const bool recompute : {false, true}) {
      if (recompute && !with_recompute) continue;
      for (const bool tensor : {true, false}) {
        if (!tensor && degree == 1) continue;
        for (const int zero : {0, 2, 3}) {
          if ((zero == 0) != (dp == 1)) continue;
          result.push_back({tensor ? degree : 1, tensor ? 1 : degree, dp, zero, recompute});
        }
      }
    }
  }
  return result;
}

std::optional<double> layer_ms(const GalvatronInstance& instance, const GalvatronSetting& setting,
                               const GalvatronStrategy& strategy, bool sync) {
  const int degree = planner::degree(strategy), sharers = strategy.dp * strategy.sp;
  const std::int64_t n = samples(instance, setting, strategy);
  const GalvatronLine& line = instance.layer_forward_ms;
  const double forward = line.slope * (static_cast<double>(n) / degree) + line.intercept;
  const double backward = 2 * forward + (strategy.recompute ? forward : 0);
  const double* rate = gradient_rate(instance, strategy);
  if (rate == nullptr) return std::nullopt;
  const double gradient = (sharers - 1) * instance.layer_parameter_mb / strategy.tp / sharers * *rate;
  double total = forward + backward;
  if (strategy.dp > 1) {
    const double reduced = sync ? gradient : 0;
    total = forward + std::max(backward, reduced) + (instance.overlap_slowdown - 1) * std::min(backward, reduced);
  }
  if (degree > 1) {
    const auto message =
        message_ms(strategy.tp > 1 ? instance.all_gather : instance.all_to_all, degree, message_mb(instance, n));
    if (!message) return std::nullopt;
    total += (strategy.tp > 1 ? 6 : 4) * (strategy.recompute ? 1.5 : 1) * *message;
  }
  if (strategy.zero == 3) total += 0.5 * gradient;
  if (setting.pp > 1) {
    const double* p2p = find(instance.p2p_ms_per_mb, setting.pp);
    if (p2p == nullptr) return std::nullopt;
    total += setting.pp * 2 * message_mb(instance, n) * *p2p / instance.layers;
  }
  return total;
}

std::optional<double> end_ms(const GalvatronInstance& instance, const GalvatronSetting& setting,
                             const GalvatronStrategy& strategy, int stage) {
  const EndPart part = end_part(instance, setting, stage);
  if (part.table == nullptr) return 0.0;
  const int sharers = strategy.dp * strategy.sp;
  const std::int64_t n = samples(instance, setting, strategy);
  const double* rate = gradient_rate(instance, strategy);
  const double* states = find(part.table->model_states_mb, strategy.tp);
  if (rate == nullptr || states == nullptr) return std::nullopt;
  const GalvatronLine& line = instance.end_forward_ms;
  const double forward = (line.slope * (static_cast<double>(n) / degree(strategy)) + line.intercept) * part.share;
  const double gather = *states / 8 * *rate * (sharers - 1) / sharers * (strategy.zero == 3 ? 0.5 : 0.0);
  const double slowdown = instance.overlap_slowdown;
  const auto overlap = [&](double compute) {
    return compute * slowdown > gather ? gather + (compute * slowdown - gather) / slowdown : gather;
  };
  double total = overlap(forward) + overlap(2 * forward);
  if (strategy.tp > 1) {
    const auto message = message_ms(instance.all_gather, strategy.tp, message_mb(instance, n));
    if (!message) return std::nullopt;
    total += part.messages * *message;
  }
  return total;
}

std::optional<std::int64_t> layer_mb(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                     const GalvatronStrategy& strategy, int stage) {
  const auto n = static_cast<double>(samples(instance, setting, strategy) * (setting.pp - stage));
  double activation = 0;
  if (strategy.recompute) {
    if (!instance.checkpoint_activation_mb) return std::nullopt;
    activation = *instance.checkpoint_activation_mb * n / degree(strategy);
  } else {
    const double* each = find(instance.layer_activation_mb, degree(strategy));
    if (each == nullptr) return std::nullopt;
    activation = *each * n;
  }
  const double states = 4 * instance.layer_parameter_mb / strategy.tp * sharded_part(setting, strategy);
  return static_cast<std::int64_t>(std::ceil(states + activation));
}

std::optional<std::int64_t> end_mb(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                   const GalvatronStrategy& strategy, int stage) {
  const EndPart part = end_part(instance, setting, stage);
  if (part.table == nullptr) return static_cast<std::int64_t>(kContextMb);
  const double* states = find(part.table->model_states_mb, strategy.tp);
  const double* activation = find(part.table->activation_mb_per_sample, degree(strategy));
  if (states == nullptr || activation == nullptr) return std::nullopt;
  const double in_flight = stage == setting.pp - 1 ? 1 : setting.pp;
  const auto n = static_cast<double>(samples(instance, setting, strategy));
  const double sum = kContextMb + (*states * sharded_part(setting, strategy) + *activation * in_flight * n);
  return static_cast<std::int64_t>(std::ceil(sum));
}

std::int64_t buffer_mb(const GalvatronInstance& instance, const GalvatronSetting& setting, int largest) {
  const std::int64_t width = instance.gpus / setting.pp;
  const std::int64_t chunk = instance.global_batch / setting.chunks;
  const std::int64_t group = std::max<std::int64_t>(largest, width / std::max<std::int64_t>(1, std::min(chunk, width)));
  const double samples = static_cast<double>(instance.global_batch) / static_cast<double>(setting.chunks) /
                         static_cast<double>(width / group);
  return static_cast<std::int64_t>(samples * static_cast<double>(instance.hidden) *
                                   static_cast<double>(instance.sequence) * 2 / kMb);
}

std::int64_t budget_mb(const GalvatronInstance& instance) {
  if (instance.memory_mb / 1024 <= 20) return instance.memory_mb;
  return instance.memory_mb - static_cast<std::int64_t>(static_cast<double>(instance.memory_mb) * 0.2);
}

std::optional<double> resharding_ms(const GalvatronInstance& instance, const GalvatronSetting& setting, int from_degree,
                                    int to_degree) {
  if (from_degree == to_degree) return 0.0;
  const int group = std::max(from_degree, to_degree), groups = instance.gpus / setting.pp / group;
  const double* rate = groups == 1 ? find(instance.all_reduce_ms_per_mb, std::to_string(group)) : nullptr;
  if (rate == nullptr) rate = find(instance.all_reduce_ms_per_mb, std::to_string(group) + "_1");
  if (rate == nullptr) return std::nullopt;
  const double samples = static_cast<double>(instance.global_batch) / static_cast<double>(setting.chunks) / groups;
  const double bytes = samples * static_cast<double>(instance.sequence) * static_cast<double>(instance.hidden) * 2;
  return (group - 1.0) / group * bytes * *rate * 1e-7 * kMsPerSecond;
}

std::optional<double> estimate_galvatron_ms(const GalvatronInstance& instance, const GalvatronPlan& plan) {
  const GalvatronSetting setting{plan.pp, plan.chunks};
  const auto chunks = static_cast<double>(plan.chunks);
  std::vector<double> free;
  double sum = 0, after_sync = 0, resharding = 0;
  std::size_t layer = 0;
  for (int stage = 0; stage < plan.pp; ++stage) {
    const auto end = end_ms(instance, setting, plan.embedding, stage);
    if (!end) return std::nullopt;
    double without = *end, with = 0;
    for (int i = 0; i < plan.split[static_cast<std::size_t>(stage)]; ++i, ++layer) {
      const auto one = layer_ms(instance, setting, plan.layers[layer], false);
      const auto synced = layer_ms(instance, setting, plan.layers[layer], true);
      const auto change =
          layer == 0 ? 0.0
                     : resharding_ms(instance, setting, degree(plan.layers[layer - 1]), degree(plan.layers[layer]));
      if (!one || !synced || !change) return std::nullopt;
      without += *one;
      with += *synced;
      resharding += *change;
    }
    sum += without;
    free.push_back(without);
    after_sync = std::max(after_sync, with - sum);
  }
  const double first = free.front(), last = free.back(), rest = sum - first;
  const double warm = static_cast<double>(std::min<std::int64_t>(plan.pp - 1, plan.chunks - 1)) * first;
  const double steady = first * static_cast<double>(std::max<std::int64_t>(0, plan.chunks + 1 - plan.pp));
  const double pipeline = std::max(sum + last * (chunks - 1), std::max(warm, rest) + steady);
  return pipeline + after_sync + chunks * resharding;
}

std::optional<std::vector<std::int64_t>> stage_memory_mb(const GalvatronInstance& instance, const GalvatronPlan& plan) {
  const GalvatronSetting setting{plan.pp, plan.chunks};
  bool tensor = plan.embedding.tp > 1;
  int largest = degree(plan.embedding);
  for (const GalvatronStrategy& strategy : plan.layers) {
    tensor = tensor || strategy.tp > 1;
    largest = std::max(largest, degree(strategy));
  }
  std::vector<std::int64_t> result;
  std::size_t layer = 0;
  for (int stage = 0; stage < plan.pp; ++stage) {
    const auto end = end_mb(instance, setting, plan.embedding, stage);
    if (!end) return std::nullopt;
    result.push_back(*end + (tensor ? buffer_mb(instance, setting, largest) : 0));
    for (int i = 0; i < plan.split[static_cast<std::size_t>(stage)]; ++i, ++layer) {
      const auto one = layer_mb(instance, setting, plan.layers[layer], stage);
      if (!one) return std::nullopt;
      result.back() += *one;
    }
  }
  return result;
}

}  // namespace coxswain::planner
