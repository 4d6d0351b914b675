#pragma once
// Alpha-beta times of messages and collectives over the links of a ResourceGraph, with the algorithm that the backend
// would choose. A group is a list of devices, or a GroupShape: where its members live, which costs the same however
// many they are. Threads: pure. Source: docs/cost_model.md, C6-C10, C18, C19, C36; algorithms: collective/algorithm.h.
#include <vector>

#include "cluster/resource_graph.h"
#include "collective/algorithm.h"

namespace coxswain::cost_model {

/// `members` devices of one class on each of `num_nodes` nodes of one group, `stride` nodes apart.
struct NodeRun {
  int device_class = 0;
  std::int64_t first_node = 0, num_nodes = 1, stride = 1, members = 1;
  friend bool operator==(const NodeRun&, const NodeRun&) = default;
};
/// A collective group, node by node. `side_by_side`: equal groups that work at the same time from the same nodes, as
/// those of the positions of a tensor axis do; they share the ways out (C18).
struct GroupShape {
  std::vector<NodeRun> runs;
  std::int64_t side_by_side = 1;
  [[nodiscard]] std::int64_t num_members() const;
};
/// Of devices in rank order. Neighbours on one node are one member each of its run.
[[nodiscard]] GroupShape shape_of(const cluster::ResourceGraph& graph, const std::vector<cluster::DeviceId>& devices);
/// The first `members` devices of the class on each node.
[[nodiscard]] std::vector<cluster::DeviceId> devices_of(const cluster::ResourceGraph& graph, const GroupShape& shape);

/// C18: how many times slower a flow is when `flows` cross `link` in one direction at once.
[[nodiscard]] double sharing_slowdown(const cluster::LinkClass& link, std::int64_t flows);

/// C10: latency + bytes / bandwidth of the link between the two. Nothing for zero bytes or one device.
[[nodiscard]] Seconds estimate_transfer_time(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId from,
                                             cluster::DeviceId to);

/// One node, ring, tree, direct (C6, C7, C9, C10): steps x latency + sent bytes / bandwidth of the slowest hop between
/// neighbours of `devices` + adds. Recursive halving (C8): the same, step by step, each over the slowest link at its
/// distance, shared by the flows of a node that cross it together; so swaps inside a node cost the node's link.
/// CUDA devices on several nodes are priced the same way whatever their number (reduce inside, ring between, gather
/// inside), as many rings as the node with fewest members has, and their broadcast as one payload over each hop of a
/// ring, since NCCL works so. An all-to-all between nodes: what stays inside and what leaves side by side (C36).
/// `devices` in rank order. One device: zero. Cost: O(devices); all but halving O(runs x tiers) with a shape.
[[nodiscard]] Seconds estimate_collective_time(const cluster::ResourceGraph& graph, collective::CollectiveKind kind,
                                               Bytes payload, const std::vector<cluster::DeviceId>& devices);
[[nodiscard]] Seconds estimate_collective_time(const cluster::ResourceGraph& graph, collective::CollectiveKind kind,
                                               Bytes payload, const GroupShape& shape);

/// C19: compute time that a CPU rank loses to the copies of `bytes` that it sends or receives: bytes / bandwidth of its
/// node's own link (half the memory bandwidth where the node has none). Zero on accelerators, which copy by themselves.
[[nodiscard]] Seconds estimate_copy_time(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId device);

}  // namespace coxswain::cost_model
