#pragma once
// Alpha-beta times of messages and collectives over the links of a ResourceGraph, with the algorithm that the backend
// would choose. Threads: pure. Source: docs/cost_model.md, C6-C10; algorithms: collective/algorithm.h.
#include <vector>

#include "cluster/resource_graph.h"
#include "collective/algorithm.h"

namespace coxswain::cost_model {

/// C10: latency + bytes / bandwidth of the link between the two. Nothing for zero bytes or one device.
[[nodiscard]] Seconds estimate_transfer_time(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId from, cluster::DeviceId to);

/// C6-C9: steps x latency + sent bytes / bandwidth of the slowest hop between neighbours of `devices`, shared by as many
/// of the group's flows as cross it at once, + the adds at a third of the memory bandwidth (two reads and a write).
/// `devices` in rank order. One device: zero.
[[nodiscard]] Seconds estimate_collective_time(const cluster::ResourceGraph& graph, collective::CollectiveKind kind, Bytes payload, const std::vector<cluster::DeviceId>& devices);

}  // namespace coxswain::cost_model
