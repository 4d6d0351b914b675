#pragma once
// Devices as counts per (class, link domain): what the search hands out. Ids are filled in last. Threads: pure values.
// Source: DESIGN 3.5 ("resources are counts per (class, link domain), never device ids").
#include <array>
#include <compare>
#include <vector>

#include "cluster/resource_graph.h"

namespace coxswain::planner {

inline constexpr std::size_t kMaxPools = 12;

/// The axes of a *unit*: devices of one node that work as one replica of a stage.
struct Axes {
  int tensor = 1, context = 1;
  [[nodiscard]] int size() const { return tensor * context; }
  friend auto operator<=>(const Axes&, const Axes&) = default;
};

/// What one replica of a stage is: a unit of one class; `expert` replicas share the experts of a block.
struct UnitKind {
  int device_class = 0;
  Axes axes;
  int expert = 1;
  friend auto operator<=>(const UnitKind&, const UnitKind&) = default;
};

/// Devices of one class that the search does not tell apart: of one node in a small cluster, of all equal nodes of a
/// domain in a large one.
struct Pool {
  int device_class = 0;
  std::int64_t first_index = 0;  // of its first device in the class; they follow each other node by node
  std::int64_t first_node = 0, num_nodes = 1;
  std::int64_t devices_per_node = 1;

  [[nodiscard]] std::int64_t size() const { return num_nodes * devices_per_node; }
  [[nodiscard]] bool one_node() const { return num_nodes == 1; }
  /// Units of `size` devices, none across nodes.
  [[nodiscard]] std::int64_t num_units(int size) const { return num_nodes * (devices_per_node / size); }
  /// Devices that `units` of them take up, with those that they leave over on their nodes.
  [[nodiscard]] std::int64_t devices_of_units(std::int64_t units, int size) const {
    const std::int64_t per_node = devices_per_node / size;
    if (one_node() || per_node * size == devices_per_node) return units * size;
    return (units * devices_per_node + per_node - 1) / per_node;
  }
};
/// Errors: Unimplemented for more than kMaxPools kinds of devices.
[[nodiscard]] Result<std::vector<Pool>> make_pools(const cluster::ResourceGraph& graph);

/// The `unit`-th unit of `size` devices when all units of the pool are of that size; its first device.
[[nodiscard]] cluster::DeviceId first_of_unit(const Pool& pool, std::int64_t unit, int size);
[[nodiscard]] std::vector<cluster::DeviceId> devices_of_unit(const Pool& pool, std::int64_t unit, int size);
/// The next unit of `size` devices after the first `used` of the pool, and moves `used` behind it. Empty: none is left.
[[nodiscard]] std::vector<cluster::DeviceId> take_unit(const Pool& pool, std::int64_t& used, int size);
/// The devices of the first such unit of the cluster. Requires: a node holds one.
[[nodiscard]] std::vector<cluster::DeviceId> first_unit(const cluster::ResourceGraph& graph, UnitKind kind);

/// How many devices of each pool.
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

/// What a stage stands on: devices of each pool, in units of these axes.
struct Composition {
  Counts devices, units;
  std::array<Axes, kMaxPools> axes;
  int expert = 1;  // replicas that share the experts of a block

  [[nodiscard]] std::int32_t replicas() const { return units.total(); }
  /// Else no two devices hold equal shards (plan::zero_of).
  [[nodiscard]] bool has_equal_axes() const;
  [[nodiscard]] UnitKind kind(const std::vector<Pool>& pools, std::size_t pool) const {
    return {pools[pool].device_class, axes[pool], expert};
  }
  friend auto operator<=>(const Composition&, const Composition&) = default;
};
/// `units` of the same axes on every pool.
[[nodiscard]] Composition make_composition(const std::vector<Pool>& pools, const Counts& units, Axes axes);
/// With axes by pool.
[[nodiscard]] Composition make_composition(const std::vector<Pool>& pools, const Counts& units,
                                           const std::array<Axes, kMaxPools>& axes);

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
[[nodiscard]] BestLink best_link(const cluster::ResourceGraph& graph, const std::vector<Pool>& pools,
                                 const Composition& a, const Composition& b, bool spread);

}  // namespace coxswain::planner
