#pragma once
// What it takes to go from a running plan to another one: which bytes stay, which travel over which links, what only a
// checkpoint still has, and the fixed cost of starting again. Called by replan. Threads: pure. Source:
// docs/cost_model.md, C70-C75; docs/replanning.md.
#include <optional>
#include <string>
#include <vector>

#include "cluster/change.h"
#include "cost_model/cost_model.h"
#include "plan/plan.h"

namespace coxswain::planner {

/// C74, C75: what a move takes beside the links. Assumed, not measured; docs/cost_model.md says where from.
struct MoveConstants {
  /// One node reads a checkpoint so fast: a disk at the end of a 10 Gbit/s network, 80 % of the line.
  BytesPerSecond checkpoint_read{1.0e9};
  /// Every process stays; communicators are made anew. The goal of the runtime for it.
  Seconds rebuild_communicators{1.0};
  /// Some process starts, loads its libraries and joins. The goal of the runtime for a node that is replaced.
  Seconds start_processes{5.0};
};

struct MoveEstimate {
  Seconds seconds{0};  // the sum of the next four
  Seconds links{0};    // of the node that takes longest, without what it reads of a checkpoint
  Seconds checkpoint{0};
  Seconds latency{0};
  Seconds restart{0};
  Bytes bytes_kept{0};               // on their device
  Bytes bytes_inside{0};             // between devices of one node
  Bytes bytes_between{0};            // between nodes
  Bytes bytes_from_disk{0};          // out of the last checkpoint: everything as soon as anything is missing
  Bytes bytes_missing{0};            // that no survivor holds
  std::vector<std::string> missing;  // "optimizer state of blocks [3,5)"
  std::int64_t worst_node = -1;      // of the changed cluster; -1: nothing moves
  [[nodiscard]] Bytes bytes_moved() const { return bytes_inside + bytes_between; }
  friend bool operator==(const MoveEstimate&, const MoveEstimate&) = default;
};

/// The move from `running` to `next`. `devices` maps running's devices into cost.resources(), where `next` stands.
/// Nothing, zero seconds, where they are one plan on the same devices.
/// C72: a slice comes from the device itself, else from its node, else over the best link that any survivor offers,
/// shared out evenly over all that offer it; it enters a node once. Once a slice has no survivor, everything comes from
/// the last checkpoint, since survivors are ahead of it. C73: the time of the worst node.
/// Requires: both plans are for cost.model(). Cost: O(parts x (devices + nodes^2 / stages)).
[[nodiscard]] MoveEstimate estimate_move(const cost_model::CostModel& cost, const plan::Plan& running,
                                         const cluster::DeviceMap& devices, const plan::Plan& next,
                                         const MoveConstants& constants = {});

/// Every device of `running` by its id in the changed cluster, by stage, replica and position; nothing where lost.
using PlacedDevices = std::vector<std::vector<std::vector<std::optional<plan::DeviceId>>>>;
/// Requires: `devices` covers the plan's devices.
[[nodiscard]] PlacedDevices place_devices(const plan::Plan& running, const cluster::DeviceMap& devices);

/// True where `next` is `running` on the same devices: same stages, samples, batch and schedule.
[[nodiscard]] bool is_same_plan(const plan::Plan& running, const cluster::DeviceMap& devices, const plan::Plan& next);

}  // namespace coxswain::planner
