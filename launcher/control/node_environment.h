#pragma once
// torchrun's conventions, both ways: the variables that a worker receives, and those from outside that say which node
// this is (PET_*, Slurm, Open MPI, indexed Kubernetes jobs). Threads: pure, given `lookup`.
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "launcher/control/train.h"

namespace coxswain::launcher {

using EnvironmentLookup = std::function<std::optional<std::string>(const std::string&)>;

/// As resolve_nodes, reading through `lookup`.
[[nodiscard]] Result<std::vector<ResolvedValue>> resolve_nodes_from(NodeOptions& nodes,
                                                                    const EnvironmentLookup& lookup);

/// "N" or "MIN:MAX", both from 1; nothing where it is neither.
[[nodiscard]] std::optional<std::pair<int, int>> parse_node_range(std::string_view text);
/// Of a range, MIN are also as few as a run goes on with; a larger max_nodes stays.
void set_node_range(NodeOptions& nodes, std::pair<int, int> range);

/// First host of a Slurm node list: "node[03-07,9],x" -> "node03".
[[nodiscard]] std::string first_slurm_host(const std::string& list);

/// As apply_hostfile, on the file's text and as the host `own_host`.
[[nodiscard]] Result<void> apply_hostfile_of(std::string_view text, const std::string& own_host, NodeOptions& nodes,
                                             int& slots);

struct WorkerPlace {
  int rank = 0, local_rank = 0, world_size = 1, local_world_size = 1;
  int node_rank = 0, num_nodes = 1;
  std::string master_addr;
  int master_port = 29500;
  std::string run_id;
  int generation = 1;
  int threads = 1;
};
/// RANK, LOCAL_RANK, WORLD_SIZE, ... OMP_NUM_THREADS.
[[nodiscard]] std::map<std::string, std::string> worker_environment(const WorkerPlace& place);

}  // namespace coxswain::launcher
