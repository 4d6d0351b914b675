#pragma once
// Devices as counts per (class, link domain): what the search hands out. Ids are filled in last. Threads: pure values.
// Source: DESIGN 3.5 ("resources are counts per (class, link domain), never device ids").
#include <array>
#include <compare>
#include <vector>

#include "cluster/resource_graph.h"

namespace coxswain::planner {

inline constexpr std::size_t kMaxPools = 12;

/// What one replica of a stage is: the devices of a unit, all of one class.
struct UnitKind {
  int device_class = 0;
  int tensor = 1, context = 1;  // axes
  [[nodiscard]] int size() const { return tensor * context; }
  friend auto operator<=>(const UnitKind&, const UnitKind&) = default;
};

/// Devices of one class that the search does not tell apart: of one node in a small cluster, of all equal nodes of a
/// domain in a large one. What it hands out are *units*: devices of one node that work as one replica of a stage.
struct Pool {
  int device_class = 0;
  std::int64_t first_index = 0;  // of its first device in the class; they follow each other node by node
  std::int64_t first_node = 0, num_nodes = 1;
  std::int64_t devices_per_node = 1;
  int tensor = 1, context = 1;  // axes of a unit

  [[nodiscard]] UnitKind kind() const { return {device_class, tensor, context}; }
  [[nodiscard]] int unit() const { return tensor * context; }
  [[nodiscard]] std::int64_t units_per_node() const { return devices_per_node / unit(); }
  /// Units.
  [[nodiscard]] std::int64_t size() const { return num_nodes * units_per_node(); }
  [[nodiscard]] bool one_node() const { return num_nodes == 1; }
};
/// Errors: Unimplemented for more than kMaxPools kinds of devices.
[[nodiscard]] Result<std::vector<Pool>> make_pools(const cluster::ResourceGraph& graph);

/// Axes of the units of each device class.
struct UnitAxes {
  std::vector<int> tensor, context;  // by device class; empty: 1
  [[nodiscard]] int tensor_of(int device_class) const {
    return tensor.empty() ? 1 : tensor[static_cast<std::size_t>(device_class)];
  }
  [[nodiscard]] int context_of(int device_class) const {
    return context.empty() ? 1 : context[static_cast<std::size_t>(device_class)];
  }
  friend auto operator<=>(const UnitAxes&, const UnitAxes&) = default;
};
/// The same devices in units of these axes, none across nodes. A pool whose nodes are smaller than a unit is empty.
[[nodiscard]] std::vector<Pool> make_units(const std::vector<Pool>& pools, const UnitAxes& axes);
/// First device of a unit.
[[nodiscard]] cluster::DeviceId device_of_unit(const Pool& pool, std::int64_t unit);
/// Devices of one unit.
[[nodiscard]] std::vector<cluster::DeviceId> devices_of_unit(const Pool& pool, std::int64_t unit);

/// The devices of the first such unit of the cluster. Requires: a node holds one.
[[nodiscard]] std::vector<cluster::DeviceId> first_unit(const cluster::ResourceGraph& graph, UnitKind kind);

/// How many units of each pool.
struct Counts {
  std::array<std::int32_t, kMaxPools> of{};
  [[nodiscard]] std::int32_t total() const {
    std::int32_t sum = 0;
    for (const std::int32_t count : of) sum += count;
    return sum;
  }
  [[nodiscard]] bool fits_in(const Counts& other) const {
    for (std::size_t p = 0; p < kMaxPools; ++p) {
      if (of[p] > other.of[p]) return false;
    }
    return true;
  }
  friend Counts operator-(Counts a, const Counts& b) {
    for (std::size_t p = 0; p < kMaxPools; ++p) a.of[p] -= b.of[p];
    return a;
  }
  friend auto operator<=>(const Counts&, const Counts&) = default;
};
[[nodiscard]] Counts all_of(const std::vector<Pool>& pools);

/// Replicas of one pool that follow each other and have equal samples.
struct Share {
  std::size_t pool = 0;
  std::int32_t replicas = 0;
  std::int64_t samples = 0;
  friend bool operator==(const Share&, const Share&) = default;
};
/// Appends; grows the last one where it is alike. Nothing for no replicas.
void add_share(std::vector<Share>& shares, Share share);

/// Best link that two stages on these counts may find between a device of one and a device of the other: least latency,
/// greatest bandwidth, and how many different links there are (transfers over different links run side by side).
/// `spread`: each node holds devices of every stage; else stages follow each other node by node.
struct BestLink {
  Seconds latency{0};
  BytesPerSecond bandwidth{0};
  int num_links = 0;
};
[[nodiscard]] BestLink best_link(const cluster::ResourceGraph& graph, const std::vector<Pool>& pools, const Counts& a,
                                 const Counts& b, bool spread);

}  // namespace coxswain::planner
