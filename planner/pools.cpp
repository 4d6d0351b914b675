#include "planner/pools.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/ensure.h"

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
    for (const cluster::DeviceCount& entry : node_class.devices) {
      // The nodes of the group, domain by domain.
      std::int64_t& index = next[entry.device_class];
      const std::int64_t end = node + graph.nodes[g].count;
      for (std::int64_t at = node; at < end;) {
        const std::int64_t domain_end = std::min(end, (at / domain + 1) * domain);
        pools[{at / domain, g, entry.device_class}] = {entry.device_class, index, at, domain_end - at, entry.count};
        index += entry.count * (domain_end - at);
        at = domain_end;
      }
    }
    node += graph.nodes[g].count;
  }
  std::vector<Pool> result;
  for (auto& [key, pool] : pools) result.push_back(pool);
  return result;
}

}  // namespace

Result<std::vector<Pool>> make_pools(const cluster::ResourceGraph& graph) {
  const std::int64_t nodes = cluster::num_nodes(graph);
  std::vector<Pool> pools = group_devices(graph, domain_size(graph, nodes));
  if (pools.size() > kMaxPools) pools = group_devices(graph, std::max<std::int64_t>(nodes, 1));
  if (pools.size() > kMaxPools) {
    return Error{ErrorCode::Unimplemented,
                 "the search tells at most " + std::to_string(kMaxPools) + " kinds of devices apart",
                 "nodes",
                 "at most " + std::to_string(kMaxPools) + " pairs of node group and device class",
                 std::to_string(pools.size()),
                 "merge equal nodes into one entry with a count"};
  }
  return pools;
}

cluster::DeviceId first_of_unit(const Pool& pool, std::int64_t unit, int size) {
  const std::int64_t per_node = pool.devices_per_node / size;
  return {pool.device_class, pool.first_index + unit / per_node * pool.devices_per_node + unit % per_node * size};
}

std::vector<cluster::DeviceId> devices_of_unit(const Pool& pool, std::int64_t unit, int size) {
  std::vector<cluster::DeviceId> devices(static_cast<std::size_t>(size), first_of_unit(pool, unit, size));
  for (std::size_t i = 0; i < devices.size(); ++i) devices[i].index += static_cast<std::int64_t>(i);
  return devices;
}

std::vector<cluster::DeviceId> take_unit(const Pool& pool, std::int64_t& used, int size) {
  const std::int64_t in_node = used % pool.devices_per_node;
  if (in_node + size > pool.devices_per_node) used += pool.devices_per_node - in_node;
  std::vector<cluster::DeviceId> devices;
  if (used + size > pool.size()) return devices;
  for (int i = 0; i < size; ++i) devices.push_back({pool.device_class, pool.first_index + used++});
  return devices;
}

bool Composition::has_equal_axes() const {
  const Axes* first = nullptr;
  for (std::size_t p = 0; p < axes.size(); ++p) {
    if (units.of[p] == 0) continue;
    if (first != nullptr && !(*first == axes[p])) return false;
    first = &axes[p];
  }
  return true;
}

Composition make_composition(const std::vector<Pool>& pools, const Counts& units, Axes axes) {
  std::array<Axes, kMaxPools> all;
  all.fill(axes);
  return make_composition(pools, units, all);
}

Composition make_composition(const std::vector<Pool>& pools, const Counts& units,
                             const std::array<Axes, kMaxPools>& axes) {
  Composition result;
  for (std::size_t p = 0; p < pools.size(); ++p) {
    if (units.of[p] == 0) continue;
    result.units.of[p] = units.of[p];
    result.axes[p] = axes[p];
    result.devices.of[p] = static_cast<std::int32_t>(pools[p].devices_of_units(units.of[p], axes[p].size()));
  }
  return result;
}

std::vector<cluster::DeviceId> first_unit(const cluster::ResourceGraph& graph, UnitKind kind) {
  std::int64_t index = 0;
  for (const cluster::NodeGroup& group : graph.nodes) {
    for (const cluster::DeviceCount& entry : graph.node_classes[static_cast<std::size_t>(group.node_class)].devices) {
      if (entry.device_class != kind.device_class) continue;
      if (entry.count >= kind.axes.size()) {
        std::vector<cluster::DeviceId> devices(static_cast<std::size_t>(kind.axes.size()), {kind.device_class, index});
        for (std::size_t i = 0; i < devices.size(); ++i) devices[i].index += static_cast<std::int64_t>(i);
        return devices;
      }
      index += entry.count * group.count;
    }
  }
  COX_ENSURE(false, "no node holds the unit", kind.device_class, kind.axes.size());
  return {};
}

Counts all_of(const std::vector<Pool>& pools) {
  Counts counts;
  for (std::size_t p = 0; p < pools.size(); ++p) counts.of[p] = static_cast<std::int32_t>(pools[p].size());
  return counts;
}

void add_share(std::vector<Share>& shares, Share share) {
  if (share.replicas == 0) return;
  if (!shares.empty() && shares.back().pool == share.pool && shares.back().samples == share.samples)
    shares.back().replicas += share.replicas;
  else
    shares.push_back(share);
}

BestLink best_link(const cluster::ResourceGraph& graph, const std::vector<Pool>& pools, const Composition& a,
                   const Composition& b, bool spread) {
  BestLink best;
  std::set<const cluster::LinkClass*> links;
  const auto include = [&](const cluster::LinkClass& link) {
    best.latency = links.empty() ? link.latency.value : std::min(best.latency, link.latency.value);
    best.bandwidth = std::max(best.bandwidth, link.bandwidth.value);
    links.insert(&link);
  };
  for (std::size_t p = 0; p < pools.size(); ++p) {
    for (std::size_t q = 0; q < pools.size(); ++q) {
      if (a.units.of[p] == 0 || b.units.of[q] == 0) continue;
      const Pool& from = pools[p];
      const Pool& to = pools[q];
      if (from.first_node != to.first_node) {
        include(cluster::link_between_nodes(graph, from.first_node, to.first_node));
        continue;
      }
      // Same node, or the same nodes: a stage of whole nodes meets its neighbour only over the network.
      const bool whole_nodes = !spread && p == q && !from.one_node() && a.devices.of[p] % from.devices_per_node == 0 &&
                               b.devices.of[q] % from.devices_per_node == 0;
      if (!whole_nodes) include(cluster::link_between_nodes(graph, from.first_node, from.first_node));
      if (!from.one_node()) include(cluster::link_between_nodes(graph, from.first_node, from.first_node + 1));
    }
  }
  best.num_links = static_cast<int>(links.size());
  return best;
}

}  // namespace coxswain::planner
