#pragma once
// A training run over one or several nodes, each with a `launch train` of its own, that benches disturb: how it is
// started, stopped and started again, and which processes it has. Called by Disturber, chaos and soak. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support/fault_kinds.h"
#include "bench/support/node_namespaces.h"
#include "bench/support/run_files.h"

namespace coxswain::bench {

struct RunSettings {
  std::filesystem::path example, plan;  // plan empty: measured and planned anew
  std::string devices;                  // of each node
  int steps = 0, save_every = 0;
  int nodes = 1;
  const NodeNamespaces* apart = nullptr;  // nodes share no network and no disk but through it
  std::filesystem::path keep;             // runs in which something was wrong are copied there; empty: nowhere
};

/// A run over nodes; the first coordinates.
struct NodeRun {
  std::filesystem::path folder;
  std::string endpoint;
  std::vector<int> launches;  // by node
  RunFolders runs;            // of node 0: one for each time that the run was started

  [[nodiscard]] const std::filesystem::path& run() const { return runs.back(); }
};

/// Where each node has a disk of its own, if they are apart.
[[nodiscard]] std::filesystem::path disk_of(const std::filesystem::path& folder);
/// That of `node`, as it is seen from outside.
[[nodiscard]] std::filesystem::path disk_seen(const RunSettings& settings, const std::filesystem::path& folder,
                                              int node);
/// Where a node's temporary files are.
[[nodiscard]] std::filesystem::path temporary_of(const std::filesystem::path& folder, const std::string& node);

/// All nodes, in `folder`, which exists.
[[nodiscard]] NodeRun start_run(const RunSettings& settings, const std::filesystem::path& folder);
/// What start_run made beside processes and files; everything has ended.
void end_run(const RunSettings& settings, const NodeRun& run);
/// All nodes once more, after the run has ended; it goes on from its newest checkpoint.
void start_again(const RunSettings& settings, NodeRun& run);
/// One node; its `launch`.
[[nodiscard]] int start_node(const RunSettings& settings, const NodeRun& run, int node);
/// Another `launch` on node 0's network that says that it is node `node` of a run with the same endpoint. `name`: of
/// its output and temporary files.
[[nodiscard]] int start_intruder(const RunSettings& settings, const NodeRun& run, int node, const std::string& name);
/// Exit code of the first node; the others end with it, or were killed. kEndedByBench if one of them did not end.
[[nodiscard]] int wait_run(const NodeRun& run, double limit_seconds);

[[nodiscard]] bool lives(int pid);
/// Processes beneath `launch` that are such; of a node the `launch` itself.
[[nodiscard]] std::vector<int> victims_of(int launch, Victim victim);
/// The rank that a worker is; -1: none.
[[nodiscard]] int rank_of(int pid);

}  // namespace coxswain::bench
