#include "cost_model/offload_time.h"

#include "cost_model/collective_time.h"

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kUpdateBytes = 32;
constexpr std::int64_t kGradientBytes = 4;

const cluster::NodeClass& node_of(const cluster::ResourceGraph& graph, cluster::DeviceId device) {
  return cluster::class_of_node(graph, cluster::locate(graph, device).node);
}

std::int64_t devices_of(const cluster::NodeClass& node) {
  std::int64_t devices = 0;
  for (const cluster::DeviceCount& entry : node.devices) devices += entry.count;
  return devices;
}

}  // namespace

Seconds estimate_host_transfer(const cluster::ResourceGraph& graph, Bytes bytes, cluster::DeviceId device) {
  if (bytes.value == 0) return Seconds(0);
  const cluster::NodeClass& node = node_of(graph, device);
  const cluster::LinkClass& link = node.host_link.name.empty() ? node.link : node.host_link;
  BytesPerSecond bandwidth = link.bandwidth.value;
  // A lone device without any link copies in its own memory.
  if (bandwidth.value <= 0)
    bandwidth = graph.device_classes[static_cast<std::size_t>(device.device_class)].memory_bandwidth.value / 2;
  return link.latency.value + bytes / bandwidth * sharing_slowdown(link, devices_of(node));
}

// C30
Seconds estimate_host_update(const cluster::ResourceGraph& graph, std::int64_t parameters, std::int64_t computed_bytes,
                             cluster::DeviceId device) {
  const cluster::NodeClass& node = node_of(graph, device);
  const BytesPerSecond known = node.host_memory_bandwidth.value;
  const BytesPerSecond whole = known.value > 0 ? known : kAssumedHostBandwidth;
  const BytesPerSecond own = whole / static_cast<double>(devices_of(node));
  return estimate_host_transfer(graph, Bytes(kGradientBytes * parameters), device) +
         Bytes(kUpdateBytes * parameters) / own +
         estimate_host_transfer(graph, Bytes(computed_bytes * parameters), device);
}

Bytes host_memory_of(const cluster::ResourceGraph& graph, cluster::DeviceId device) {
  const cluster::NodeClass& node = node_of(graph, device);
  return node.host_memory.value / devices_of(node);
}

}  // namespace coxswain::cost_model
