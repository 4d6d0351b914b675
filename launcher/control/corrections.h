#pragma once
// What a run learnt of its devices and links against what its cluster file (or the measurement at its start) says of
// them. Kept by the run's own numbers of nodes and devices, so that they hold for every later search, whoever is lost
// by then. Made by adaptation, used by choose_plan, kept in the journal. Threads: pure values. Source:
// docs/replanning.md.
#include <vector>

#include "cluster/change.h"
#include "common/json.h"
#include "launcher/control/measurement.h"

namespace coxswain::launcher {

/// The device does so many times the work that its class is said to do.
struct DeviceCorrection {
  int node = 0, local_device = 0;
  double rate_ratio = 1;
  friend bool operator==(const DeviceCorrection&, const DeviceCorrection&) = default;
};
/// The link has so many times the bandwidth that it is said to have. Inside a node where both are one.
struct LinkCorrection {
  int node_a = 0, node_b = 0;  // node_a <= node_b
  double bandwidth_ratio = 1;
  friend bool operator==(const LinkCorrection&, const LinkCorrection&) = default;
};

/// At most one of each device and link, in the order of their numbers.
struct Corrections {
  std::vector<DeviceCorrection> devices;
  std::vector<LinkCorrection> links;
  [[nodiscard]] bool empty() const { return devices.empty() && links.empty(); }
  friend bool operator==(const Corrections&, const Corrections&) = default;

  /// 1 where nothing is known.
  [[nodiscard]] double rate_ratio(int node, int local_device) const;
  [[nodiscard]] double bandwidth_ratio(int node_a, int node_b) const;
  /// On top of what is known.
  void multiply_rate(int node, int local_device, double ratio);
  void multiply_bandwidth(int node_a, int node_b, double ratio);
};
[[nodiscard]] Json to_json(const Corrections& corrections);
/// Errors: InvalidArgument (of form).
[[nodiscard]] Result<Corrections> corrections_from_json(const Json& json);

/// Puts `corrections` into `cluster`. The fastest measured device of a class gives the rates (and times of the profile)
/// of the whole class; those that are slower than it by a quarter or more are returned, as a fraction of them, by their
/// numbers in the class: another class, for apply_change. Who was not measured counts as the fastest. A link's
/// bandwidth becomes that of its tier where all pairs of nodes are corrected alike, else an override; inside nodes it
/// is the median of the node class. `all_devices`: of the run. Cost: O(devices^2) where devices are corrected.
std::vector<cluster::ClusterChange::Slower> correct(MeasuredCluster& cluster,
                                                    const std::vector<RankBinding>& all_devices,
                                                    const Corrections& corrections);

}  // namespace coxswain::launcher
