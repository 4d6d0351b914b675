#include "cost_model/collective_time.h"

#include <algorithm>
#include <map>

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

/// Where the members of a group live.
struct GroupNodes {
  std::vector<std::int64_t> node_of;
  std::map<std::int64_t, std::int64_t> members;  // by node

  GroupNodes(const cluster::ResourceGraph& graph, const std::vector<DeviceId>& devices) {
    for (const DeviceId device : devices) {
      node_of.push_back(cluster::locate(graph, device).node);
      ++members[node_of.back()];
    }
  }
  [[nodiscard]] bool one_node() const { return members.size() == 1; }
  /// Members of each node if equal, else 0.
  [[nodiscard]] std::int64_t equal_members() const {
    const std::int64_t first = members.begin()->second;
    const bool equal =
        std::all_of(members.begin(), members.end(), [&](const auto& entry) { return entry.second == first; });
    return equal ? first : 0;
  }
};

Seconds add_time(const cluster::ResourceGraph& graph, Bytes reduced, const std::vector<DeviceId>& devices) {
  BytesPerSecond slowest{0};
  for (const DeviceId device : devices) {
    const BytesPerSecond bandwidth =
        graph.device_classes[static_cast<std::size_t>(device.device_class)].memory_bandwidth.value;
    slowest = slowest.value == 0 ? bandwidth : std::min(slowest, bandwidth);
  }
  return reduced / slowest * kMovesPerAdd;
}

/// Around the ring each node sends to the next over one flow.
Hop ring_hop(const cluster::ResourceGraph& graph, const GroupNodes& nodes) {
  Hop hop;
  const std::size_t count = nodes.node_of.size();
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t next = nodes.node_of[(i + 1) % count];
    if (i > 0 && nodes.node_of[i] == next && nodes.node_of[i - 1] == next) continue;  // the same hop as before
    hop.include(cluster::link_between_nodes(graph, nodes.node_of[i], next), 1.0);
  }
  return hop;
}

/// Links of the swaps at `distance`, with the flows of each node that cross together.
Hop swap_hop(const cluster::ResourceGraph& graph, const GroupNodes& nodes, std::size_t distance) {
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> pairs;
  std::map<std::int64_t, std::int64_t> leaving;
  const std::size_t power = nodes.node_of.size();
  for (std::size_t i = 0; i < power; ++i) {
    const std::size_t partner = i ^ distance;
    if (partner >= power) continue;
    ++pairs[{nodes.node_of[i], nodes.node_of[partner]}];
    if (nodes.node_of[i] != nodes.node_of[partner]) ++leaving[nodes.node_of[i]];
  }
  Hop hop;
  for (const auto& [pair, flows] : pairs) {
    const LinkClass& link = cluster::link_between_nodes(graph, pair.first, pair.second);
    hop.include(link, pair.first == pair.second ? 1.0 : sharing_slowdown(link, leaving[pair.first]));
  }
  return hop;
}

// C8, step by step: shorter and shorter halves over farther and farther partners, and back.
Seconds halving_time(const cluster::ResourceGraph& graph, const GroupNodes& nodes, Bytes payload) {
  Seconds time{0};
  Bytes half = payload;
  for (std::size_t distance = 1; distance < nodes.node_of.size(); distance *= 2) {
    half = Bytes((half.value + 1) / 2);
    time += swap_hop(graph, nodes, distance).time(2, half * 2);
  }
  return time;
}

/// Reduce inside each node, ring of the parts between nodes, gather inside: C7 twice.
Seconds two_level_time(const cluster::ResourceGraph& graph, const GroupNodes& nodes, CollectiveKind kind, Bytes payload,
                       std::int64_t members) {
  const double passes = kind == CollectiveKind::AllReduce ? 2.0 : 1.0;
  Seconds time{0};
  if (members > 1) {
    const auto inner = static_cast<int>(members);
    const AlgorithmCost cost = collective::cost_of(CollectiveKind::ReduceScatter, Algorithm::Ring, payload, inner);
    Hop hop;
    for (const auto& [node, count] : nodes.members) hop.include(cluster::link_between_nodes(graph, node, node), 1.0);
    time += hop.time(cost.num_steps, cost.sent_bytes) * passes;
  }
  const auto outer = static_cast<int>(nodes.members.size());
  const AlgorithmCost cost = collective::cost_of(CollectiveKind::ReduceScatter, Algorithm::Ring,
                                                 Bytes((payload.value + members - 1) / members), outer);
  Hop hop;
  for (auto at = nodes.members.begin(); at != nodes.members.end(); ++at) {
    const auto next = std::next(at) == nodes.members.end() ? nodes.members.begin() : std::next(at);
    const LinkClass& link = cluster::link_between_nodes(graph, at->first, next->first);
    hop.include(link, sharing_slowdown(link, members));
  }
  return time + hop.time(cost.num_steps, cost.sent_bytes) * passes;
}

}  // namespace

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
  const int ranks = static_cast<int>(devices.size());
  if (ranks < 2 || (payload.value == 0 && kind != CollectiveKind::Barrier)) return Seconds(0);
  const GroupNodes nodes(graph, devices);
  const Algorithm algorithm = collective::choose_algorithm(kind, payload, ranks, nodes.one_node());
  const AlgorithmCost cost = collective::cost_of(kind, algorithm, payload, ranks);
  const bool accelerators =
      graph.device_classes[static_cast<std::size_t>(devices.front().device_class)].kind == cluster::DeviceKind::Cuda;
  const Seconds adds = add_time(graph, cost.reduced_bytes, devices);
  const bool ring_like =
      kind == CollectiveKind::AllReduce || kind == CollectiveKind::ReduceScatter || kind == CollectiveKind::AllGather;
  if (accelerators && ring_like && payload > collective::kLatencyBound) {
    if (nodes.one_node()) {
      const AlgorithmCost ring = collective::cost_of(kind, Algorithm::Ring, payload, ranks);
      return ring_hop(graph, nodes).time(ring.num_steps, ring.sent_bytes);
    }
    if (const std::int64_t members = nodes.equal_members(); members > 0)
      return two_level_time(graph, nodes, kind, payload, members);
  }
  // NCCL's broadcast passes pieces along a ring, so each hop carries the payload once.
  if (accelerators && kind == CollectiveKind::Broadcast && payload > collective::kLatencyBound)
    return ring_hop(graph, nodes).time(ranks - 1, payload);
  if (algorithm == Algorithm::RecursiveHalving) return halving_time(graph, nodes, payload) + adds;
  return ring_hop(graph, nodes).time(cost.num_steps, cost.sent_bytes) + adds;
}

Seconds estimate_copy_time(const cluster::ResourceGraph& graph, Bytes bytes, DeviceId device) {
  const cluster::DeviceClass& device_class = graph.device_classes[static_cast<std::size_t>(device.device_class)];
  if (device_class.kind != cluster::DeviceKind::Cpu) return Seconds(0);
  const std::int64_t node = cluster::locate(graph, device).node;
  const BytesPerSecond own = cluster::link_between_nodes(graph, node, node).bandwidth.value;
  return bytes / (own.value > 0 ? own : BytesPerSecond(device_class.memory_bandwidth.value.value / 2));
}

}  // namespace coxswain::cost_model
