#include "cost_model/collective_time.h"

#include <algorithm>
#include <utility>

#include "common/ensure.h"

namespace coxswain::cost_model {
namespace {

using cluster::DeviceId;
using cluster::LinkClass;
using collective::Algorithm;
using collective::AlgorithmCost;
using collective::CollectiveKind;

/// An add reads two operands and writes one.
constexpr double kMovesPerAdd = 3.0;

/// The slowest of several hops: the worst latency with the worst bandwidth.
struct Hop {
  Seconds latency{0};
  BytesPerSecond bandwidth{0};
  bool any = false;

  void include(const LinkClass& link, double slowdown) {
    const BytesPerSecond shared(link.bandwidth.value.value / slowdown);
    latency = std::max(latency, link.latency.value);
    bandwidth = any ? std::min(bandwidth, shared) : shared;
    any = true;
  }
  [[nodiscard]] Seconds time(double steps, Bytes bytes) const { return latency * steps + bytes / bandwidth; }
};

std::int64_t node_at(const NodeRun& run, std::int64_t position) { return run.first_node + position * run.stride; }
std::int64_t last_node(const NodeRun& run) { return node_at(run, run.num_nodes - 1); }

/// Members of each node, whatever their order: runs in node order, no node twice.
std::vector<NodeRun> by_node(const std::vector<NodeRun>& runs) {
  const auto follows = [](const NodeRun& a, const NodeRun& b) { return last_node(a) < b.first_node; };
  if (std::is_sorted(runs.begin(), runs.end(), [&](const NodeRun& a, const NodeRun& b) { return !follows(b, a); }) &&
      std::adjacent_find(runs.begin(), runs.end(),
                         [&](const NodeRun& a, const NodeRun& b) { return !follows(a, b); }) == runs.end())
    return runs;
  std::vector<NodeRun> single;
  for (const NodeRun& run : runs) {
    for (std::int64_t i = 0; i < run.num_nodes; ++i)
      single.push_back({run.device_class, node_at(run, i), 1, 1, run.members});
  }
  std::sort(single.begin(), single.end(),
            [](const NodeRun& a, const NodeRun& b) { return a.first_node < b.first_node; });
  std::vector<NodeRun> merged;
  for (const NodeRun& node : single) {
    if (!merged.empty() && merged.back().first_node == node.first_node)
      merged.back().members += node.members;
    else
      merged.push_back(node);
  }
  return merged;
}

/// Where the members of a group live: in rank order and node by node.
struct GroupNodes {
  const cluster::ResourceGraph& graph;
  std::vector<NodeRun> order, nodes;
  std::int64_t side_by_side = 1;
  std::int64_t num_nodes = 0, fewest = 0, most = 0;  // nodes, members of one

  GroupNodes(const cluster::ResourceGraph& g, const GroupShape& shape)
      : graph(g), order(shape.runs), nodes(by_node(shape.runs)), side_by_side(shape.side_by_side) {
    for (const NodeRun& run : nodes) {
      num_nodes += run.num_nodes;
      fewest = fewest == 0 ? run.members : std::min(fewest, run.members);
      most = std::max(most, run.members);
    }
  }
  [[nodiscard]] bool one_node() const { return num_nodes == 1; }
  [[nodiscard]] const LinkClass& link(std::int64_t a, std::int64_t b) const {
    return cluster::link_between_nodes(graph, a, b);
  }
};

Seconds add_time(const GroupNodes& group, Bytes reduced) {
  BytesPerSecond slowest{0};
  for (const NodeRun& run : group.order) {
    const BytesPerSecond bandwidth =
        group.graph.device_classes[static_cast<std::size_t>(run.device_class)].memory_bandwidth.value;
    slowest = slowest.value == 0 ? bandwidth : std::min(slowest, bandwidth);
  }
  return reduced / slowest * kMovesPerAdd;
}

/// Up to so many nodes every pair of neighbours is looked at.
constexpr std::int64_t kWalkedNodes = 32;

/// Positions in a long run whose hops to the next node take every link that a hop of the run takes: its first ones, and
/// the first ones that leave a domain of each tier, with those after them.
std::vector<std::int64_t> telling_hops(const cluster::ResourceGraph& graph, const NodeRun& run) {
  std::vector<std::int64_t> hops;
  const std::int64_t count = run.num_nodes - 1;
  if (count <= kWalkedNodes || !graph.link_overrides.empty()) {
    for (std::int64_t i = 0; i < count; ++i) hops.push_back(i);
    return hops;
  }
  constexpr std::int64_t kEach = 3;  // of three neighbouring borders at most every second is a wider domain's too
  for (std::int64_t i = 0; i < kEach; ++i) hops.push_back(i);
  const auto add = [&](const std::vector<cluster::NetworkTier>& tiers, std::int64_t base) {
    for (const cluster::NetworkTier& tier : tiers) {
      const std::int64_t size = tier.nodes_per_domain, begin = run.first_node - base;
      if (size == 0 || begin < 0) continue;
      // Wide strides stay inside a domain only from some places in it: all of them come up in `size` hops.
      for (std::int64_t hop = kEach; size < 2 * run.stride && hop < std::min(size, count); ++hop) hops.push_back(hop);
      std::int64_t border = (begin / size + 1) * size;
      for (std::int64_t i = 0; i < kEach; ++i, border += size) {
        const std::int64_t across = (border - 1 - begin) / run.stride;
        for (const std::int64_t hop : {across, across + 1})
          if (hop < count) hops.push_back(hop);
      }
    }
  };
  add(graph.tiers, 0);
  std::int64_t base = 0;
  for (const cluster::NodeGroup& group : graph.nodes) {
    if (run.first_node < base + group.count) {
      add(group.tiers, base);
      break;
    }
    base += group.count;
  }
  return hops;
}

/// Hops from node to node along the runs and back to the first; `flows` leave each node together.
void include_between(const GroupNodes& group, const std::vector<NodeRun>& runs, std::int64_t flows, Hop& hop) {
  const auto include = [&](std::int64_t a, std::int64_t b) {
    if (a == b) return;
    const LinkClass& link = group.link(a, b);
    hop.include(link, sharing_slowdown(link, flows));
  };
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (const std::int64_t at : telling_hops(group.graph, runs[r]))
      include(node_at(runs[r], at), node_at(runs[r], at + 1));
    include(last_node(runs[r]), runs[(r + 1) % runs.size()].first_node);
  }
}

/// Around the ring each node sends to the next over one flow.
Hop ring_hop(const GroupNodes& group) {
  Hop hop;
  for (std::size_t r = 0; r < group.order.size(); ++r) {
    const NodeRun& run = group.order[r];
    const bool stays = run.members > 1 || last_node(run) == group.order[(r + 1) % group.order.size()].first_node;
    if (stays) hop.include(group.link(run.first_node, run.first_node), 1.0);
  }
  include_between(group, group.order, group.side_by_side, hop);
  return hop;
}

// C8, step by step: shorter and shorter halves over farther and farther partners, and back.
Seconds halving_time(const GroupNodes& group, Bytes payload) {
  std::vector<std::int64_t> node_of;  // by rank
  for (const NodeRun& run : group.order) {
    for (std::int64_t i = 0; i < run.num_nodes; ++i)
      node_of.insert(node_of.end(), static_cast<std::size_t>(run.members), node_at(run, i));
  }
  std::vector<std::int64_t> distinct = node_of;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<std::size_t> index_of;
  for (const std::int64_t node : node_of)
    index_of.push_back(
        static_cast<std::size_t>(std::lower_bound(distinct.begin(), distinct.end(), node) - distinct.begin()));

  Seconds time{0};
  Bytes half = payload;
  std::vector<std::int64_t> leaving(distinct.size());
  for (std::size_t distance = 1; distance < node_of.size(); distance *= 2) {
    half = Bytes((half.value + 1) / 2);
    const auto partner = [&](std::size_t rank) { return rank ^ distance; };
    std::fill(leaving.begin(), leaving.end(), 0);
    for (std::size_t i = 0; i < node_of.size(); ++i)
      if (partner(i) < node_of.size() && index_of[i] != index_of[partner(i)]) ++leaving[index_of[i]];
    // Links of the swaps, with the flows of each node that cross together.
    Hop hop;
    std::pair<std::int64_t, std::int64_t> before{-1, -1};
    for (std::size_t i = 0; i < node_of.size(); ++i) {
      if (partner(i) >= node_of.size()) continue;
      const std::pair pair{node_of[i], node_of[partner(i)]};
      if (pair == before) continue;
      before = pair;
      const LinkClass& link = group.link(pair.first, pair.second);
      hop.include(link,
                  pair.first == pair.second ? 1.0 : sharing_slowdown(link, leaving[index_of[i]] * group.side_by_side));
    }
    time += hop.time(2, half * 2);
  }
  return time;
}

/// Reduce inside each node, ring of the parts between nodes, gather inside: C7 twice. C36: as many rings between nodes
/// as the node with fewest members has.
Seconds two_level_time(const GroupNodes& group, CollectiveKind kind, Bytes payload) {
  const double passes = kind == CollectiveKind::AllReduce ? 2.0 : 1.0;
  Seconds time{0};
  if (group.most > 1) {
    const auto inner = static_cast<int>(group.most);
    const AlgorithmCost cost = collective::cost_of(CollectiveKind::ReduceScatter, Algorithm::Ring, payload, inner);
    Hop hop;
    for (const NodeRun& run : group.nodes)
      if (run.members > 1) hop.include(group.link(run.first_node, run.first_node), 1.0);
    time += hop.time(cost.num_steps, cost.sent_bytes) * passes;
  }
  const auto outer = static_cast<int>(group.num_nodes);
  const AlgorithmCost cost = collective::cost_of(CollectiveKind::ReduceScatter, Algorithm::Ring,
                                                 Bytes((payload.value + group.fewest - 1) / group.fewest), outer);
  Hop hop;
  include_between(group, group.nodes, group.fewest * group.side_by_side, hop);
  return time + hop.time(cost.num_steps, cost.sent_bytes) * passes;
}

/// C36: a member sends an equal part to each other one; what stays inside its node and what leaves it, over ways that
/// all members of the node share, go side by side.
Seconds exchange_time(const GroupNodes& group, Bytes payload, std::int64_t ranks) {
  const double part = static_cast<double>(payload.value) / static_cast<double>(ranks);
  const auto bytes = [&](std::int64_t parts) {
    return Bytes(static_cast<std::int64_t>(part * static_cast<double>(parts)));
  };
  Seconds inside{0};
  for (const NodeRun& run : group.nodes) {
    if (run.members < 2) continue;
    Hop hop;
    hop.include(group.link(run.first_node, run.first_node), 1.0);
    inside = std::max(inside, hop.time(1, bytes(run.members - 1)));
  }
  Hop hop;
  include_between(group, group.nodes, group.most * group.side_by_side, hop);
  const LinkClass& farthest = group.link(group.nodes.front().first_node, last_node(group.nodes.back()));
  hop.include(farthest, sharing_slowdown(farthest, group.most * group.side_by_side));
  return std::max(inside, hop.time(1, bytes(ranks - group.fewest)));
}

/// First node of the group of nodes that comes after the one of `node`.
std::int64_t end_of_group(const cluster::ResourceGraph& graph, std::int64_t node) {
  std::int64_t end = 0;
  for (const cluster::NodeGroup& group : graph.nodes) {
    end += group.count;
    if (node < end) break;
  }
  return end;
}

}  // namespace

std::int64_t GroupShape::num_members() const {
  std::int64_t members = 0;
  for (const NodeRun& run : runs) members += run.num_nodes * run.members;
  return members;
}

GroupShape shape_of(const cluster::ResourceGraph& graph, const std::vector<DeviceId>& devices) {
  std::vector<NodeRun> single;  // neighbours in rank order on one node
  for (const DeviceId device : devices) {
    const std::int64_t node = cluster::locate(graph, device).node;
    if (!single.empty() && single.back().first_node == node && single.back().device_class == device.device_class)
      ++single.back().members;
    else
      single.push_back({device.device_class, node, 1, 1, 1});
  }
  GroupShape shape;
  std::int64_t end = 0;  // of the last run's group of nodes
  for (const NodeRun& node : single) {
    if (!shape.runs.empty()) {
      NodeRun& run = shape.runs.back();
      const std::int64_t stride = node.first_node - last_node(run);
      if (run.device_class == node.device_class && run.members == node.members && stride > 0 && node.first_node < end &&
          (run.num_nodes == 1 || stride == run.stride)) {
        run.stride = stride;
        ++run.num_nodes;
        continue;
      }
    }
    shape.runs.push_back(node);
    end = end_of_group(graph, node.first_node);
  }
  return shape;
}

std::vector<DeviceId> devices_of(const cluster::ResourceGraph& graph, const GroupShape& shape) {
  std::vector<DeviceId> devices;
  for (const NodeRun& run : shape.runs) {
    for (std::int64_t i = 0; i < run.num_nodes; ++i) {
      std::int64_t offset = 0;
      for (const cluster::DeviceCount& entry : cluster::class_of_node(graph, node_at(run, i)).devices) {
        if (entry.device_class == run.device_class) break;
        offset += entry.count;
      }
      for (std::int64_t m = 0; m < run.members; ++m)
        devices.push_back(cluster::device_at(graph, node_at(run, i), offset + m));
    }
  }
  return devices;
}

double sharing_slowdown(const LinkClass& link, std::int64_t flows) {
  if (link.sharing == 0 || flows <= link.sharing) return 1.0;
  return static_cast<double>(flows) / link.sharing;
}

Seconds estimate_transfer_time(const cluster::ResourceGraph& graph, Bytes bytes, DeviceId from, DeviceId to) {
  if (bytes.value == 0 || from == to) return Seconds(0);
  const LinkClass& link = cluster::link_between(graph, from, to);
  return link.latency.value + bytes / link.bandwidth.value;
}

Seconds estimate_collective_time(const cluster::ResourceGraph& graph, CollectiveKind kind, Bytes payload,
                                 const std::vector<DeviceId>& devices) {
  if (devices.size() < 2) return Seconds(0);
  return estimate_collective_time(graph, kind, payload, shape_of(graph, devices));
}

Seconds estimate_collective_time(const cluster::ResourceGraph& graph, CollectiveKind kind, Bytes payload,
                                 const GroupShape& shape) {
  const int ranks = static_cast<int>(shape.num_members());
  if (ranks < 2 || (payload.value == 0 && kind != CollectiveKind::Barrier)) return Seconds(0);
  const GroupNodes group(graph, shape);
  const Algorithm algorithm = collective::choose_algorithm(kind, payload, ranks, group.one_node());
  const AlgorithmCost cost = collective::cost_of(kind, algorithm, payload, ranks);
  const bool accelerators =
      graph.device_classes[static_cast<std::size_t>(shape.runs.front().device_class)].kind == cluster::DeviceKind::Cuda;
  const bool ring_like =
      kind == CollectiveKind::AllReduce || kind == CollectiveKind::ReduceScatter || kind == CollectiveKind::AllGather;
  if (accelerators && ring_like && payload > collective::kLatencyBound) {
    if (!group.one_node()) return two_level_time(group, kind, payload);
    const AlgorithmCost ring = collective::cost_of(kind, Algorithm::Ring, payload, ranks);
    return ring_hop(group).time(ring.num_steps, ring.sent_bytes);
  }
  // NCCL's broadcast passes pieces along a ring, so each hop carries the payload once.
  if (accelerators && kind == CollectiveKind::Broadcast && payload > collective::kLatencyBound)
    return ring_hop(group).time(ranks - 1, payload);
  if (kind == CollectiveKind::AllToAll && !group.one_node()) return exchange_time(group, payload, ranks);
  const Seconds adds = add_time(group, cost.reduced_bytes);
  if (algorithm == Algorithm::RecursiveHalving) return halving_time(group, payload) + adds;
  return ring_hop(group).time(cost.num_steps, cost.sent_bytes) + adds;
}

Seconds estimate_copy_time(const cluster::ResourceGraph& graph, Bytes bytes, DeviceId device) {
  const cluster::DeviceClass& device_class = graph.device_classes[static_cast<std::size_t>(device.device_class)];
  if (device_class.kind != cluster::DeviceKind::Cpu) return Seconds(0);
  const std::int64_t node = cluster::locate(graph, device).node;
  const BytesPerSecond own = cluster::link_between_nodes(graph, node, node).bandwidth.value;
  return bytes / (own.value > 0 ? own : BytesPerSecond(device_class.memory_bandwidth.value.value / 2));
}

}  // namespace coxswain::cost_model
