#include "planner/pools.h"

#include <algorithm>
#include <map>
#include <set>

namespace coxswain::planner {
namespace {

/// Up to so many nodes each is a pool of its own, so that every placement is seen.
constexpr std::int64_t kMaxSeparateNodes = 4;

struct PoolKey {
  std::int64_t domain = 0;
  std::size_t group = 0;
  int device_class = 0;
  friend auto operator<=>(const PoolKey&, const PoolKey&) = default;
};

/// How many consecutive nodes are not told apart.
std::int64_t domain_size(const cluster::ResourceGraph& graph, std::int64_t nodes) {
  if (nodes <= kMaxSeparateNodes) return 1;
  for (auto tier = graph.tiers.rbegin(); tier != graph.tiers.rend(); ++tier) {
    const std::int64_t size = tier->nodes_per_domain;
    if (size == 0 || size >= nodes) continue;
    return (nodes + size - 1) / size <= kMaxSeparateNodes ? size : nodes;
  }
  return nodes;
}

std::vector<Pool> group_devices(const cluster::ResourceGraph& graph, std::int64_t domain) {
  std::map<PoolKey, Pool> pools;
  std::map<int, std::int64_t> next;  // ids count class by class over all nodes
  std::int64_t node = 0;
  for (std::size_t g = 0; g < graph.nodes.size(); ++g) {
    const cluster::NodeClass& node_class = graph.node_classes[static_cast<std::size_t>(graph.nodes[g].node_class)];
    for (std::int64_t i = 0; i < graph.nodes[g].count; ++i, ++node) {
      for (const cluster::DeviceCount& entry : node_class.devices) {
        Pool& pool = pools[{node / domain, g, entry.device_class}];
        if (pool.devices.empty()) {
          pool.device_class = entry.device_class;
          pool.per_node = entry.count;
          pool.first_node = node;
        }
        pool.one_node = pool.one_node && pool.first_node == node;
        for (std::int64_t d = 0; d < entry.count; ++d)
          pool.devices.push_back({entry.device_class, next[entry.device_class]++});
      }
    }
  }
  std::vector<Pool> result;
  for (auto& [key, pool] : pools) result.push_back(std::move(pool));
  return result;
}

}  // namespace

Result<std::vector<Pool>> make_pools(const cluster::ResourceGraph& graph) {
  const std::int64_t nodes = cluster::num_nodes(graph);
  std::vector<Pool> pools = group_devices(graph, domain_size(graph, nodes));
  if (pools.size() > kMaxPools) pools = group_devices(graph, std::max<std::int64_t>(nodes, 1));
  if (pools.size() > kMaxPools) {
    return Error{ErrorCode::Unimplemented,
                 "the search tells at most 8 kinds of devices apart",
                 "nodes",
                 "at most 8 pairs of node group and device class",
                 std::to_string(pools.size()),
                 "merge equal nodes into one entry with a count"};
  }
  return pools;
}

std::vector<Pool> make_units(const std::vector<Pool>& pools, const std::vector<int>& degree) {
  std::vector<Pool> result = pools;
  for (Pool& pool : result) {
    pool.tensor = degree[static_cast<std::size_t>(pool.device_class)];
    const auto size = static_cast<std::size_t>(pool.tensor);
    const auto node = static_cast<std::size_t>(pool.per_node);
    std::vector<cluster::DeviceId> firsts;
    for (std::size_t begin = 0; begin < pool.devices.size(); begin += node) {
      const std::size_t end = std::min(pool.devices.size(), begin + node);
      for (std::size_t at = begin; at + size <= end; at += size) firsts.push_back(pool.devices[at]);
    }
    pool.devices = std::move(firsts);
    pool.per_node /= pool.tensor;
  }
  return result;
}

std::vector<cluster::DeviceId> devices_of_unit(const Pool& pool, std::size_t unit) {
  std::vector<cluster::DeviceId> devices(static_cast<std::size_t>(pool.tensor), pool.devices[unit]);
  for (std::size_t i = 0; i < devices.size(); ++i) devices[i].index += static_cast<std::int64_t>(i);
  return devices;
}

Counts all_of(const std::vector<Pool>& pools) {
  Counts counts;
  for (std::size_t p = 0; p < pools.size(); ++p) counts.of[p] = static_cast<std::int32_t>(pools[p].devices.size());
  return counts;
}

BestLink best_link(const cluster::ResourceGraph& graph, const std::vector<Pool>& pools, const Counts& a,
                   const Counts& b, bool spread) {
  BestLink best;
  std::set<const cluster::LinkClass*> links;
  const auto include = [&](const cluster::LinkClass& link) {
    best.latency = links.empty() ? link.latency.value : std::min(best.latency, link.latency.value);
    best.bandwidth = std::max(best.bandwidth, link.bandwidth.value);
    links.insert(&link);
  };
  for (std::size_t p = 0; p < pools.size(); ++p) {
    for (std::size_t q = 0; q < pools.size(); ++q) {
      if (a.of[p] == 0 || b.of[q] == 0) continue;
      const Pool& from = pools[p];
      const Pool& to = pools[q];
      if (from.first_node != to.first_node) {
        include(cluster::link_between_nodes(graph, from.first_node, to.first_node));
        continue;
      }
      // Same node, or the same nodes: a stage of whole nodes meets its neighbour only over the network.
      const bool whole_nodes =
          !spread && p == q && !from.one_node && a.of[p] % from.per_node == 0 && b.of[q] % from.per_node == 0;
      if (!whole_nodes) include(cluster::link_between_nodes(graph, from.first_node, from.first_node));
      if (!from.one_node) include(cluster::link_between_nodes(graph, from.first_node, from.first_node + 1));
    }
  }
  best.num_links = static_cast<int>(links.size());
  return best;
}

}  // namespace coxswain::planner
