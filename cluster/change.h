#pragma once
// What happened to a cluster since a plan was made for it: devices lost, devices slower than their class, nodes added.
// Devices are numbered node by node, so a lost one shifts the numbers behind it: apply_change gives the new graph and
// where every old device is in it. Called by the launcher (re-planning) and planner/. Threads: pure values. Source:
// DESIGN 3.5, docs/replanning.md.
#include <optional>
#include <string>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"

namespace coxswain::cluster {

struct ClusterChange {
  /// Devices [first, last] of a class; of the name `node` (where no class has it): all devices of nodes [first, last].
  struct Lost {
    std::string name;
    std::int64_t first = 0, last = 0;
    friend bool operator==(const Lost&, const Lost&) = default;
  };
  /// Devices that do everything at `rate_fraction` of their class's rates (above 0, below 1).
  struct Slower {
    std::string name;
    std::int64_t first = 0, last = 0;
    double rate_fraction = 1;
    friend bool operator==(const Slower&, const Slower&) = default;
  };
  struct Added {
    std::string node_class;
    std::int64_t count = 1;
    friend bool operator==(const Added&, const Added&) = default;
  };
  std::vector<Lost> lost;
  std::vector<Slower> slower;
  std::vector<Added> added;
  [[nodiscard]] bool empty() const { return lost.empty() && slower.empty() && added.empty(); }
  friend bool operator==(const ClusterChange&, const ClusterChange&) = default;
};

/// Lists separated by commas: lost `CLASS:INDEX[-INDEX]` or `node:INDEX[-INDEX]`, slower the same with `=FRACTION`,
/// added `NODE_CLASS=COUNT`. Errors: InvalidArgument, all problems at once; paths are the names of the flags.
[[nodiscard]] Result<ClusterChange> parse_change(const std::vector<std::string>& lost,
                                                 const std::vector<std::string>& slower,
                                                 const std::vector<std::string>& added);

/// By class, then index, of the old graph: the same device in the new graph; nothing where it is lost.
using DeviceMap = std::vector<std::vector<std::optional<DeviceId>>>;

struct SlowedClass {
  int device_class = 0;  // in the new graph: "a100-80 at 0.6"
  int of = 0;            // the class it was
  double rate_fraction = 1;
  friend bool operator==(const SlowedClass&, const SlowedClass&) = default;
};

struct ChangedCluster {
  ResourceGraph graph;
  DeviceMap devices;
  std::vector<SlowedClass> slowed;
};
/// Slower devices become a class of their own with scaled rates. A node that loses or slows devices becomes a node
/// class of its own. Domains of the network keep their members: a lost node leaves its number, unless no later node
/// would change its domain, and unlike nodes move to the end of the domain that they share with like ones, so that like
/// nodes stay one group. Added nodes come last, in the group of their class where that is the last one.
/// Errors: InvalidArgument, all problems at once: unknown names, indices beyond the cluster, a device that is lost and
/// slower, no device left. Requires: validate(before) is empty. Cost: O(nodes).
[[nodiscard]] Result<ChangedCluster> apply_change(const ResourceGraph& before, const ClusterChange& change);

/// Where only two cluster files are known: the i-th device of a class is the i-th of the class of that name, as far as
/// there are so many; the last ones are taken to be lost.
[[nodiscard]] DeviceMap match_devices(const ResourceGraph& before, const ResourceGraph& after);
/// Every device is where it was.
[[nodiscard]] DeviceMap identity_map(const ResourceGraph& graph);

/// Adds what was measured of each slowed class's origin, at its fraction of the rates.
void add_slowed(Profile& profile, const ChangedCluster& changed);

}  // namespace coxswain::cluster
