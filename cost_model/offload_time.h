#pragma once
// What lives in host memory instead of on the device, and what its way there and back takes. Called by mesh_times and
// memory. Threads: pure. Source: docs/cost_model.md, C30 (optimizer), C34 (activations).
#include "cluster/resource_graph.h"

namespace coxswain::cost_model {

/// Where a node class does not say: one processor with eight channels of DDR4-3200 (AMD EPYC 7003 datasheet).
inline constexpr BytesPerSecond kAssumedHostBandwidth{204.8e9};

/// Time of `bytes` between a device and its host, one way, while all devices of the node do the same: host_link, or the
/// node's own link where that is not known (C18 for its sharing).
[[nodiscard]] Seconds estimate_host_transfer(const cluster::ResourceGraph& graph, Bytes bytes,
                                             cluster::DeviceId device);

/// C30: the update of `parameters` in host memory, which the devices of the node share: 32 bytes a parameter (C13) plus
/// the gradient in (4) and what is computed with out (`computed_bytes` a parameter) over the host link, one after the
/// other.
[[nodiscard]] Seconds estimate_host_update(const cluster::ResourceGraph& graph, std::int64_t parameters,
                                           std::int64_t computed_bytes, cluster::DeviceId device);

/// Host memory that a device has: an equal share of its node's.
[[nodiscard]] Bytes host_memory_of(const cluster::ResourceGraph& graph, cluster::DeviceId device);

}  // namespace coxswain::cost_model
