#pragma once
// From what every rank measured to the ResourceGraph and the profile that planning works on, and back from the
// planner's canonical devices to the agents' devices. Threads: pure. Source: DESIGN 3.2.
#include <string>
#include <string_view>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "common/result.h"
#include "launcher/control/coordinator.h"

namespace coxswain::launcher {

/// Every device of every node as one rank, in order of nodes, with the name of its class: devices of equal kind, cores
/// and model are one class ("cpu-1.0", a second model "cpu-1.0-b").
[[nodiscard]] std::vector<RankBinding> bind_all_devices(const std::vector<NodeView>& nodes);

/// "auto" resolved: nccl where every device is CUDA, else host. Errors: Unimplemented (mpi over several nodes).
[[nodiscard]] Result<std::string> resolve_backend(const std::string& asked, const std::vector<NodeView>& nodes);

/// Whether what was measured of the devices of one agent holds for those of the other (serialised AgentHello): as many,
/// of the same kinds, models and cores, in the same order.
[[nodiscard]] bool has_same_devices(std::string_view hello, std::string_view other);

/// A node that comes when the run goes on, with devices like those of the run's node `like`: rates and links of those
/// hold for it, and its links to others are as theirs. False where no link between nodes is known: see add_link.
[[nodiscard]] bool add_like_node(Measurements& measurements, NodeView node, int like);
/// Between two nodes of the run, each with a device.
void add_link(Measurements& measurements, int node, int other, Seconds latency, BytesPerSecond bandwidth);

struct MeasuredCluster {
  cluster::ResourceGraph resources;
  cluster::Profile profile;   // empty blocks when none was measured
  std::vector<int> run_node;  // the run's node of each node of the graph
};
/// Medians over the ranks of a class, over the links of a node class, over the links between nodes; a link between two
/// nodes that is far from that median is kept as an override.
/// Errors: Internal (a report that cannot be read).
[[nodiscard]] Result<MeasuredCluster> build_cluster(const Measurements& measurements);

/// Where the planner's device stands in this run.
[[nodiscard]] RankBinding bind_device(const MeasuredCluster& cluster, const std::vector<RankBinding>& all_devices,
                                      cluster::DeviceId device);

}  // namespace coxswain::launcher
