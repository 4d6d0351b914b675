#include "cost_model/price.h"

#include <algorithm>

#include "cost_model/memory.h"
#include "plan/program.h"
#include "plan/zero.h"

namespace coxswain::cost_model {
namespace {

constexpr double kSecondsAnHour = 3600;
constexpr double kGradientBytes = 4;

bool has_priced_link(const cluster::ResourceGraph& graph) {
  const auto priced = [](const cluster::LinkClass& link) { return link.price.value.value > 0; };
  const auto any_tier = [&](const std::vector<cluster::NetworkTier>& tiers) {
    return std::any_of(tiers.begin(), tiers.end(), [&](const auto& tier) { return priced(tier.link); });
  };
  return any_tier(graph.tiers) ||
         std::any_of(graph.nodes.begin(), graph.nodes.end(),
                     [&](const auto& group) { return any_tier(group.tiers); }) ||
         std::any_of(graph.link_overrides.begin(), graph.link_overrides.end(),
                     [&](const auto& entry) { return priced(entry.link); });
}

double hop_usd(const cluster::ResourceGraph& graph, plan::DeviceId from, plan::DeviceId to, double bytes) {
  const std::int64_t a = cluster::locate(graph, from).node, b = cluster::locate(graph, to).node;
  return a == b ? 0 : bytes * cluster::link_between_nodes(graph, a, b).price.value.value;
}

/// Activations and gradients of all micro-batches between stages.
double edges_usd(const CostModel& cost, const plan::Plan& plan) {
  double usd = 0;
  for (int rank = 0; rank < plan::num_ranks(plan); ++rank) {
    const int stage = plan::place_of(plan, rank).stage;
    const int cut = plan.stages[static_cast<std::size_t>(stage)].end_block;
    for (const plan::Transfer& transfer : plan::transfers_to_next(plan, rank)) {
      const Bytes both = cost.facts().activation_bytes(cut, transfer.num_samples, plan.precision) +
                         cost.facts().gradient_bytes(cut, transfer.num_samples, plan.precision);
      usd += hop_usd(cost.resources(), plan::device_of(plan, rank), plan::device_of(plan, transfer.peer),
                     static_cast<double>(both.value * plan.batch.count) / transfer.num_shards);
    }
  }
  return usd;
}

/// What one replica sends to the next around the ring in a step, an element of the stage: C7 and C26.
double ring_bytes(const plan::Plan& plan, const plan::Stage& stage) {
  const auto replicas = static_cast<double>(stage.replicas.size());
  const double pass = (replicas - 1) / replicas, count = static_cast<double>(plan.batch.count);
  const double computed = plan::is_mixed(plan.precision) ? 2 : 4;
  switch (plan::zero_of(stage)) {
    case 0: return 2 * pass * kGradientBytes;
    case 1: return pass * (kGradientBytes + computed);
    case 2: return pass * (count * kGradientBytes + computed);
    default: return pass * count * (kGradientBytes + 2 * computed);
  }
}

double reductions_usd(const CostModel& cost, const plan::Plan& plan) {
  double usd = 0;
  for (const plan::Stage& stage : plan.stages) {
    const std::size_t replicas = stage.replicas.size();
    if (replicas < 2) continue;
    const plan::Replica& first = stage.replicas.front();
    const auto elements =
        static_cast<double>(count_persistent(cost.facts(), stage.first_block, stage.end_block, first.tensor).held);
    for (std::size_t r = 0; r < replicas; ++r) {
      const plan::Replica& from = stage.replicas[r];
      const plan::Replica& to = stage.replicas[(r + 1) % replicas];
      const std::size_t width = std::min(from.devices.size(), to.devices.size());
      for (std::size_t position = 0; position < width; ++position)
        usd +=
            hop_usd(cost.resources(), from.devices[position], to.devices[position], elements * ring_bytes(plan, stage));
    }
  }
  return usd;
}

}  // namespace

std::optional<cluster::Usd> estimate_cost_per_step(const CostModel& cost, const plan::Plan& plan, Seconds step) {
  const cluster::ResourceGraph& graph = cost.resources();
  double hourly = 0;
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Replica& replica : stage.replicas) {
      for (const plan::DeviceId device : replica.devices) {
        const double price = graph.device_classes[static_cast<std::size_t>(device.device_class)].price.value.value;
        if (price <= 0) return std::nullopt;
        hourly += price;
      }
    }
  }
  double usd = step.value * hourly / kSecondsAnHour;
  if (has_priced_link(graph)) usd += edges_usd(cost, plan) + reductions_usd(cost, plan);
  return cluster::Usd(usd);
}

std::optional<cluster::Usd> least_cost_per_step(const CostModel& cost, std::int64_t global_batch,
                                                plan::Precision precision, int max_tensor) {
  const cluster::ResourceGraph& graph = cost.resources();
  if (!unpriced_classes(graph).empty()) return std::nullopt;
  // As C23 looks at rates: all numbers of samples of a small batch, powers of two of a large one.
  constexpr std::int64_t kSmall = 32;
  std::vector<std::int64_t> probes;
  if (const std::int64_t fixed = cost.facts().static_batch(); fixed > 0) {
    probes = {fixed};
  } else {
    for (std::int64_t s = 1; s < global_batch; s += s < kSmall ? 1 : s) probes.push_back(s);
    probes.push_back(global_batch);
  }
  double usd = 0;
  for (int block = 0; block < cost.facts().num_blocks(); ++block) {
    double least = -1;
    for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
      if (cluster::num_devices(graph, static_cast<int>(c)) == 0) continue;
      const double price = graph.device_classes[c].price.value.value / kSecondsAnHour;
      for (int tensor = 1; tensor <= max_tensor; tensor *= 2) {
        if (tensor > 1 && !cost.facts().splits_over(tensor)) continue;
        for (const std::int64_t samples : probes) {
          const BlockTime time = cost.estimate_block({block, static_cast<int>(c), samples, precision, tensor});
          const double here = price * tensor * (time.forward + time.backward).value / static_cast<double>(samples);
          least = least < 0 ? here : std::min(least, here);
        }
      }
    }
    usd += std::max(0.0, least) * static_cast<double>(global_batch);
  }
  return cluster::Usd(usd);
}

std::string unpriced_classes(const cluster::ResourceGraph& graph) {
  std::string names;
  for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
    if (graph.device_classes[c].price.value.value > 0 || cluster::num_devices(graph, static_cast<int>(c)) == 0)
      continue;
    names += (names.empty() ? "" : ", ") + graph.device_classes[c].name;
  }
  return names;
}

}  // namespace coxswain::cost_model
