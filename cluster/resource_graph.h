#pragma once
// Devices, nodes and link tiers as classes with counts, each number with its source. Read by cost_model/, planner/ and
// the launcher; written by the probe and from files. Threads: pure values. Source: DESIGN 3.2, docs/cluster.md.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/dtype.h"
#include "common/json.h"
#include "common/result.h"
#include "common/units.h"

namespace coxswain::cluster {

using UsdPerHour = Quantity<struct UsdPerHourTag, double>;
using Usd = Quantity<struct UsdTag, double>;
using UsdPerByte = Quantity<struct UsdPerByteTag, double>;

enum class Source { Measured, Datasheet, Assumed };
[[nodiscard]] std::string_view to_text(Source source);
[[nodiscard]] std::optional<Source> parse_source(std::string_view text);

/// A number and where it came from.
template <class T>
struct Sourced {
  T value{};
  Source source = Source::Assumed;
  friend bool operator==(const Sourced&, const Sourced&) = default;
};

enum class DeviceKind { Cpu, Cuda };
[[nodiscard]] std::string_view to_text(DeviceKind kind);

/// Achieved matmul rate at one problem size (m = n = k = `size`).
struct MatmulRate {
  DType dtype = DType::Float32;
  std::int64_t size = 0;
  Sourced<FlopPerSecond> rate;
  friend bool operator==(const MatmulRate&, const MatmulRate&) = default;
};

struct DeviceClass {
  std::string name;  // "cpu-1.0", "a100-80"
  DeviceKind kind = DeviceKind::Cpu;
  double cores = 0;       // CPU cores (share) this device may use; 0 for accelerators
  Sourced<Bytes> memory;  // what the plan may fill
  Sourced<BytesPerSecond> memory_bandwidth;
  Sourced<FlopPerSecond> peak_float32, peak_bfloat16;  // matmul peak
  std::vector<MatmulRate> matmul_rates;                // efficiency curve, ascending size; may be empty
  Sourced<Seconds> launch_overhead;                    // per operator
  Sourced<UsdPerHour> price;                           // of one device; 0: unknown
  friend bool operator==(const DeviceClass&, const DeviceClass&) = default;
};

/// One hop: alpha-beta, one direction. `sharing` = how many ranks' flows it carries at full rate before they share it
/// (0: not shared; 1: one flow at a time has the whole bandwidth).
struct LinkClass {
  std::string name;  // "shared-memory", "nvlink", "tcp", "ib400"
  Sourced<Seconds> latency;
  Sourced<BytesPerSecond> bandwidth;
  int sharing = 0;
  Sourced<UsdPerByte> price = {};  // of a byte that crosses it; 0: none
  friend bool operator==(const LinkClass&, const LinkClass&) = default;
};

struct DeviceCount {
  int device_class = 0;  // index into ResourceGraph::device_classes
  std::int64_t count = 1;
  friend bool operator==(const DeviceCount&, const DeviceCount&) = default;
};

struct NodeClass {
  std::string name;
  std::vector<DeviceCount> devices;
  LinkClass link;  // between two devices of the node
  Sourced<Bytes> host_memory;
  int cores = 0;
  LinkClass host_link = {};                            // between a device and host memory; without a name: not known
  Sourced<BytesPerSecond> host_memory_bandwidth = {};  // of the whole node; 0: not known
  friend bool operator==(const NodeClass&, const NodeClass&) = default;
};

/// Nodes are numbered group by group; `nodes_per_domain` consecutive ones share this tier (0: all nodes). Tiers go from
/// the nearest to the farthest; two nodes talk over the first tier whose domain holds both.
struct NetworkTier {
  LinkClass link;
  std::int64_t nodes_per_domain = 0;
  friend bool operator==(const NetworkTier&, const NetworkTier&) = default;
};

struct NodeGroup {
  int node_class = 0;
  std::int64_t count = 1;
  std::vector<NetworkTier> tiers = {};  // between nodes of this group, counted from its first, before the graph's
  bool continues = false;  // counts on in the tiers of the group before it: one network, several node classes
  friend bool operator==(const NodeGroup&, const NodeGroup&) = default;
};

/// A measured link between two nodes that differs from its tier.
struct LinkOverride {
  std::int64_t node_a = 0, node_b = 0;
  LinkClass link;
  friend bool operator==(const LinkOverride&, const LinkOverride&) = default;
};

struct ResourceGraph {
  std::vector<DeviceClass> device_classes;
  std::vector<NodeClass> node_classes;
  std::vector<NodeGroup> nodes;
  std::vector<NetworkTier> tiers;
  std::vector<LinkOverride> link_overrides;
  friend bool operator==(const ResourceGraph&, const ResourceGraph&) = default;
};

/// Canonical device: the `index`-th of its class, counted node by node. Holds no host name.
struct DeviceId {
  int device_class = 0;
  std::int64_t index = 0;
  friend auto operator<=>(const DeviceId&, const DeviceId&) = default;
};

struct DeviceLocation {
  std::int64_t node = 0;         // number of the node
  std::int64_t local_index = 0;  // among all devices of the node, classes in the node class's order
};

[[nodiscard]] std::int64_t num_nodes(const ResourceGraph& graph);
[[nodiscard]] std::int64_t num_devices(const ResourceGraph& graph);
[[nodiscard]] std::int64_t num_devices(const ResourceGraph& graph, int device_class);
/// Requires: the id exists. Cost: O(node groups).
[[nodiscard]] DeviceLocation locate(const ResourceGraph& graph, DeviceId device);
/// Inverse of locate.
[[nodiscard]] DeviceId device_at(const ResourceGraph& graph, std::int64_t node, std::int64_t local_index);
/// The link between two devices: the node's own, an override, or the first tier (of their group, then of the graph)
/// that holds both.
[[nodiscard]] const LinkClass& link_between(const ResourceGraph& graph, DeviceId a, DeviceId b);
/// The class of node number `node`. Requires: it exists.
[[nodiscard]] const NodeClass& class_of_node(const ResourceGraph& graph, std::int64_t node);
[[nodiscard]] const LinkClass& link_between_nodes(const ResourceGraph& graph, std::int64_t a, std::int64_t b);

/// Every rule that `graph` breaks (indices, positive numbers, at least one device).
[[nodiscard]] std::vector<Error> validate(const ResourceGraph& graph);
[[nodiscard]] Json to_json(const ResourceGraph& graph);
[[nodiscard]] Result<ResourceGraph> resource_graph_from_json(const Json& json);
/// Hash of classes and counts, without rates: sha256 hex.
[[nodiscard]] std::string cluster_hash(const ResourceGraph& graph);

}  // namespace coxswain::cluster
