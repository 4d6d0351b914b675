#include <algorithm>
#include <array>
#include <string_view>

#include "common/ensure.h"
#include "cost_model/recipe.h"

namespace coxswain::cost_model {
namespace {

/// Best 8-bit and 4-bit matmul rates over the best 16-bit one. 8 bits: largest over shapes, ml-engineering (stas00)
/// MAMF tables: H100 1402.6 of 794.5, H200 1453.4, GH200 1535 of 828.6, B200 3432.5 of 1745, B300 3353.3 of 1769, GB200
/// 3615.6 of 1822 TFLOP/s. 4 bits and what is not there: the ratio of the datasheets' peaks.
struct NarrowRates {
  std::string_view prefix;
  double bits8 = 1, bits4 = 1;
};
constexpr std::array<NarrowRates, 17> kNarrowRates{{{"h100", 1.765, 1.765},
                                                    {"h200", 1.83, 1.83},
                                                    {"h800", 1.765, 1.765},
                                                    {"h20", 2, 2},
                                                    {"gh200", 1.85, 1.85},
                                                    {"b200", 1.967, 3.93},
                                                    {"b300", 1.896, 5.69},
                                                    {"gb200", 1.984, 3.97},
                                                    {"gb300", 1.984, 5.95},
                                                    {"l4", 2, 2},
                                                    {"rtx-4090", 2, 2},
                                                    {"rtx-5090", 2, 4},
                                                    {"mi300", 2, 2},
                                                    {"mi325", 2, 2},
                                                    {"mi355", 2, 4},
                                                    {"gaudi2", 2, 2},
                                                    {"tpu7", 2, 2}}};

/// What the flash kernels of AttentionKernel were written for, and before.
constexpr std::array<std::string_view, 11> kUpToAmpere{"p100", "v100", "t4",  "titan", "rtx-2080", "rtx-3090",
                                                       "a100", "a800", "a10", "a40",   "a6000"};

/// The first tier that has the node's own link joins a domain.
double domain_of(const cluster::ResourceGraph& graph, const std::vector<cluster::NetworkTier>& tiers,
                 const cluster::LinkClass& link, double devices) {
  for (const cluster::NetworkTier& tier : tiers) {
    if (tier.link.name != link.name) continue;
    const std::int64_t nodes = tier.nodes_per_domain > 0 ? tier.nodes_per_domain : cluster::num_nodes(graph);
    return devices * static_cast<double>(nodes);
  }
  return devices;
}

}  // namespace

RecipeMachine recipe_machine(const cluster::ResourceGraph& graph) {
  COX_ENSURE(!graph.nodes.empty() && !graph.device_classes.empty(), "a graph has nodes");
  const cluster::NodeGroup& group = graph.nodes.front();
  const cluster::NodeClass& node = graph.node_classes[static_cast<std::size_t>(group.node_class)];
  RecipeMachine machine;
  machine.device = graph.device_classes[static_cast<std::size_t>(node.devices.front().device_class)];
  cluster::DeviceClass& device = machine.device;
  // A device without bfloat16 arithmetic computes 16-bit recipes in float16.
  if (device.peak_bfloat16.value.value <= 0) {
    for (cluster::MatmulRate& rate : device.matmul_rates) {
      if (rate.dtype != DType::Float16) continue;
      rate.dtype = DType::BFloat16;
      device.peak_bfloat16.value = std::max(device.peak_bfloat16.value, rate.rate.value);
    }
  }
  double best = 0;
  for (const cluster::MatmulRate& rate : device.matmul_rates)
    if (rate.dtype == DType::BFloat16) best = std::max(best, rate.rate.value.value);
  if (best <= 0) best = device.peak_bfloat16.value.value;
  for (const NarrowRates& narrow : kNarrowRates) {
    if (!device.name.starts_with(narrow.prefix)) continue;
    machine.best_8bit = FlopPerSecond(best * narrow.bits8);
    machine.best_4bit = FlopPerSecond(best * narrow.bits4);
    break;
  }
  machine.after_ampere = std::none_of(kUpToAmpere.begin(), kUpToAmpere.end(),
                                      [&](std::string_view prefix) { return device.name.starts_with(prefix); });

  double devices = 0;
  for (const cluster::DeviceCount& count : node.devices) devices += static_cast<double>(count.count);
  machine.node_link = node.link;
  std::vector<cluster::NetworkTier> tiers = group.tiers;
  tiers.insert(tiers.end(), graph.tiers.begin(), graph.tiers.end());
  machine.domain_devices = domain_of(graph, tiers, node.link, devices);
  machine.network = tiers.empty() ? node.link : tiers.back().link;
  if (!tiers.empty() && machine.network.sharing > 0) {
    const double share = std::min(1.0, machine.network.sharing / devices);
    machine.network.bandwidth.value = BytesPerSecond(machine.network.bandwidth.value.value * share);
  }
  return machine;
}

}  // namespace coxswain::cost_model
