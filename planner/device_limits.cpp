#include "planner/device_limits.h"

#include <algorithm>

namespace coxswain::planner {
namespace {

/// Devices of `device_class` on one node that has most of them.
std::int64_t devices_of_node(const cluster::ResourceGraph& graph, int device_class) {
  std::int64_t most = 1;
  for (const cluster::NodeGroup& group : graph.nodes) {
    for (const cluster::DeviceCount& entry : graph.node_classes[static_cast<std::size_t>(group.node_class)].devices) {
      if (entry.device_class == device_class) most = std::max(most, entry.count);
    }
  }
  return most;
}

/// All, halves in whole nodes, one node, halves of it, one, none: at most `most` shares, the smallest left out first.
std::vector<std::int64_t> shares(const cluster::ResourceGraph& graph, int device_class, std::size_t most) {
  const std::int64_t all = cluster::num_devices(graph, device_class), node = devices_of_node(graph, device_class);
  std::vector<std::int64_t> result{all};
  for (std::int64_t count = all / 2; count >= 1 && result.size() + 1 < most; count /= 2) {
    if (count > node) count -= count % node;
    if (count < result.back()) result.push_back(count);
  }
  if (all > 0 && most > 1) result.push_back(0);
  return result;
}

}  // namespace

void limit_pools(std::vector<Pool>& pools, const std::vector<std::int64_t>& limits) {
  if (limits.empty()) return;
  std::vector<std::int64_t> left = limits;
  std::vector<Pool> kept;
  for (const Pool& pool : pools) {
    std::int64_t& remaining = left[static_cast<std::size_t>(pool.device_class)];
    const std::int64_t count = std::min(remaining, pool.size());
    remaining -= count;
    // Whole nodes, and what is left of one more as a pool of its own where there is room for it.
    Pool whole = pool, part = pool;
    whole.num_nodes = count / pool.devices_per_node;
    part.num_nodes = 1;
    part.devices_per_node = count % pool.devices_per_node;
    part.first_index += whole.size();
    part.first_node += whole.num_nodes;
    if (whole.num_nodes > 0) kept.push_back(whole);
    if (part.devices_per_node > 0 && (whole.num_nodes == 0 || pools.size() + 1 < kMaxPools)) kept.push_back(part);
  }
  if (kept.size() > kMaxPools) kept.resize(kMaxPools);
  pools = std::move(kept);
}

std::vector<std::vector<std::int64_t>> limit_choices(const cluster::ResourceGraph& graph, std::size_t most) {
  const std::size_t num_classes = graph.device_classes.size();
  std::vector<std::vector<std::int64_t>> choices;
  for (std::size_t per_class = 40; per_class >= 1; --per_class) {
    choices = {{}};
    for (std::size_t c = 0; c < num_classes; ++c) {
      std::vector<std::vector<std::int64_t>> longer;
      for (const auto& choice : choices) {
        for (const std::int64_t share : shares(graph, static_cast<int>(c), per_class)) {
          longer.push_back(choice);
          longer.back().push_back(share);
        }
      }
      choices = std::move(longer);
    }
    std::erase_if(choices, [](const auto& choice) {
      return std::all_of(choice.begin(), choice.end(), [](std::int64_t count) { return count == 0; });
    });
    if (choices.size() <= most) break;
  }
  return choices;
}

}  // namespace coxswain::planner
