#pragma once
// Devices as counts per (class, link domain): what the search hands out. Ids are filled in last. Threads: pure values.
// Source: DESIGN 3.5 ("resources are counts per (class, link domain), never device ids").
#include <array>
#include <compare>
#include <vector>

#include "cluster/resource_graph.h"

namespace coxswain::planner {

inline constexpr std::size_t kMaxPools = 8;

/// Devices of one class that the search does not tell apart: of one node in a small cluster, of all equal nodes of a
/// domain in a large one.
struct Pool {
  int device_class = 0;
  std::vector<cluster::DeviceId> devices;  // node by node; where `tensor` > 1 the first of each unit
  std::int64_t per_node = 1;               // units
  int tensor = 1;                          // devices of a unit: consecutive ones of one node
  bool one_node = true;
  std::int64_t first_node = 0;
};
/// Errors: Unimplemented for more than kMaxPools kinds of devices.
[[nodiscard]] Result<std::vector<Pool>> make_pools(const cluster::ResourceGraph& graph);
/// The same devices in units of `degree[class]`, none across nodes. A pool whose nodes are smaller than a unit is
/// empty.
[[nodiscard]] std::vector<Pool> make_units(const std::vector<Pool>& pools, const std::vector<int>& degree);
/// Devices of one unit.
[[nodiscard]] std::vector<cluster::DeviceId> devices_of_unit(const Pool& pool, std::size_t unit);

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
