#pragma once
// What the CLI calls: train, probe and check. Each starts a coordinator process and this node's agent (both are this
// program under hidden verbs), follows them, and leaves no process behind. Threads: one caller, the main thread,
// because children end with the thread that started them. Source: DESIGN 3.8, INTERFACE sections 1 and 3.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "common/exit_code.h"
#include "common/result.h"
#include "launcher/control/trace_steps.h"
#include "launcher/job/job.h"

namespace coxswain::launcher {

/// Where this process stands among the nodes of the run. Values come from flags; resolve_nodes fills gaps from the
/// environment.
struct NodeOptions {
  int num_nodes = 0;                 // that the run begins with; 0: not given
  int max_nodes = 0;                 // that it takes while it trains; 0: num_nodes
  int min_nodes = 0;                 // MIN of MIN:MAX where MAX is more: it goes on with as few; 0: none was given
  int node_rank = -1;                // -1: not given
  std::string rdzv_endpoint;         // "HOST:PORT" of node 0; empty: loopback, any port (one node)
  std::string local_addr;            // where `host` TCP binds; empty: the address that reaches the coordinator
  std::filesystem::path token_file;  // required for several nodes
};

/// One value that was resolved and where it came from ("flag", "PET_NNODES", "default").
struct ResolvedValue {
  std::string name, value, source;
};

/// Fills what was not given from PET_*, Slurm and Open MPI variables and defaults (torchrun's port 29400).
/// Errors: InvalidArgument (not a number, rank outside the range).
[[nodiscard]] Result<std::vector<ResolvedValue>> resolve_nodes(NodeOptions& nodes);

struct TrainRequest {
  Job job;
  std::vector<std::string> constraints;  // KEY=VALUE texts of flags, on top of the job's
  std::filesystem::path plan_file;       // on top of the job's
  std::string devices;                   // SPEC; empty: auto
  int processes_per_node = 0;            // --nproc-per-node; 0: auto; only without `devices`
  NodeOptions nodes;
  std::string backend = "auto";
  std::filesystem::path run_dir;  // empty: runs/NAME-YYYYMMDD-HHMMSS
  std::filesystem::path log_dir;  // empty: RUN-DIR/logs
  bool tee = false;               // copies the ranks' output to the console
  std::string metrics;            // "ADDRESS:PORT" where this node's agent serves /metrics; empty: nowhere
  double shutdown_timeout_seconds = 30;
  TraceSteps trace_steps;                // none
  std::optional<int> max_restarts;       // empty: the job's
  std::string resume = "auto";           // "never", or a checkpoint, a folder of them, or a run's folder
  std::filesystem::path worker_program;  // empty: beside this program or in libexec
  double join_timeout_seconds = 600;     // for all nodes to come
  std::filesystem::path cluster_file;  // plan on these resources instead of the measured ones (same classes and counts)
};

struct TrainOutcome {
  ExitCode exit_code = ExitCode::Done;  // or 128 + n after a signal
  std::filesystem::path run_dir;
  std::int64_t steps = 0;
  double loss = 0;
  std::optional<double> validation_loss;
  double median_step_seconds = 0, predicted_step_seconds = 0;
};

/// Order and slots of nodes from a hostfile ("host slots=N" a line): fills num_nodes, node_rank (this host's line),
/// rdzv_endpoint (the first host) and `slots` where they were not given. It starts nothing.
/// Errors: NotFound; InvalidArgument (a line that cannot be read; this host is not listed).
[[nodiscard]] Result<void> apply_hostfile(const std::filesystem::path& file, NodeOptions& nodes, int& slots);

/// Probe, plan, run. Prints the console lines on stdout. On a node other than 0 it only runs the agent.
/// Errors: of every part; Unavailable names the first failed rank, its node and the cause.
[[nodiscard]] Result<TrainOutcome> run_train(const TrainRequest& request);

struct ProbeRequest {
  std::string devices;  // SPEC; empty: auto
  NodeOptions nodes;
  std::optional<Job> job;  // profile its blocks too
  std::string backend = "auto";
  std::filesystem::path worker_program;
};
struct ProbeOutcome {
  cluster::ResourceGraph resources;
  std::optional<cluster::Profile> profile;
};
/// Measures with every device busy, under the shares that training will have. On a node other than 0 the outcome is
/// empty.
[[nodiscard]] Result<ProbeOutcome> run_probe(const ProbeRequest& request);

struct CheckOutcome {
  double loss = 0, recorded_loss = 0, grad_norm = 0, recorded_grad_norm = 0, worst_gradient_error = 0;
  std::string worst_parameter;
  bool passed = false;
};
/// `launch model check`: the exporter's recorded step in one worker with all cores.
[[nodiscard]] Result<CheckOutcome> run_check(const std::filesystem::path& pt2,
                                             const std::filesystem::path& worker_program = {});

/// `launch agent --coordinator ADDR:PORT`: joins and works until the run is over. The result is the run's exit code.
struct AgentRequest {
  std::string coordinator;
  std::string devices;
  int processes_per_node = 0;        // as in TrainRequest
  std::filesystem::path token_file;  // required
  std::string local_addr;
  int node_rank = -1;
  std::filesystem::path run_dir;  // for logs; empty: runs/agent-YYYYMMDD-HHMMSS
  std::filesystem::path worker_program;
  bool tee = false;
  std::string metrics;  // as in TrainRequest
  double join_timeout_seconds = 600;
};
[[nodiscard]] Result<ExitCode> run_agent(const AgentRequest& request);

/// Hidden verbs, which read their request (with the key) from stdin: `launch coordinator` and `launch local-agent`.
[[nodiscard]] ExitCode run_coordinator_process();
[[nodiscard]] ExitCode run_local_agent_process();

}  // namespace coxswain::launcher
