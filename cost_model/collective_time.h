#pragma once
// Alpha-beta times of messages and collectives over the links of a ResourceGraph, with the algorithm that the backend
// would choose. Threads: pure. Source: docs/cost_model.md, C6-C10, C18, C19; algorithms: collective/algorithm.h.
#include <vector>

#include "cluster/resource_graph.h"
#include "collective/algorithm.h"

namespace coxswain::cost_model {

/// C18: how many times slower a flow is when `flows` cross `link` in one direction at once.
[[nodiscard]] double sharing_slowdown(const cluster::LinkClass& link, std::int64_t flows);

/// C10: latency + bytes / bandwidth of the link between the two. Nothing for zero bytes or one device.
[[nodiscard]] Seconds estimate_transfer_time(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId from,
                                             cluster::DeviceId to);

/// One node, ring, tree, direct (C6, C7, C9, C10): steps x latency + sent bytes / bandwidth of the slowest hop between
/// neighbours of `devices` + adds. Recursive halving (C8): the same, step by step, each over the slowest link at its
/// distance, shared by the flows of a node that cross it together; so swaps inside a node cost the node's link.
/// CUDA devices with equal numbers on several nodes are priced the same way whatever their number (reduce inside, ring
/// between, gather inside), and their broadcast as one payload over each hop of a ring, since NCCL works so.
/// `devices` in rank order. One device: zero.
[[nodiscard]] Seconds estimate_collective_time(const cluster::ResourceGraph& graph, collective::CollectiveKind kind,
                                               Bytes payload, const std::vector<cluster::DeviceId>& devices);

/// C19: compute time that a CPU rank loses to the copies of `bytes` that it sends or receives: bytes / bandwidth of its
/// node's own link (half the memory bandwidth where the node has none). Zero on accelerators, which copy by themselves.
[[nodiscard]] Seconds estimate_copy_time(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId device);

}  // namespace coxswain::cost_model
