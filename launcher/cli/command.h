#pragma once
// What the commands share: how one registers itself, and the plumbing from a job to a cost model.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "common/exit_code.h"
#include "common/result.h"
#include "cost_model/cost_model.h"
#include "launcher/job/job.h"
#include "model/model_graph.h"
#include "planner/planner.h"

namespace CLI {
class App;
}

namespace coxswain::launcher {

/// The action of the command that was parsed; its result is the exit code.
using Action = std::function<Result<ExitCode>()>;

void add_plan_command(CLI::App& app, Action& action);
void add_explain_command(CLI::App& app, Action& action);
void add_simulate_command(CLI::App& app, Action& action);
void add_validate_command(CLI::App& app, Action& action);
void add_model_command(CLI::App& app, Action& action);
void add_train_command(CLI::App& app, Action& action);
void add_probe_command(CLI::App& app, Action& action);
void add_catalogue_command(CLI::App& app, Action& action);
void add_export_command(CLI::App& app, Action& action);
void add_agent_command(CLI::App& app, Action& action);
void add_coordinator_command(CLI::App& app, Action& action);

/// A flag of the fixed interface that this version cannot do: known, and refused by name (exit 64) when set.
void add_missing_option(CLI::App& command, const std::string& flag, const std::string& what);
/// Errors of kind "usage" (exit 64) carry this code in the CLI.
[[nodiscard]] Error usage_error(const std::string& message, const std::string& expected, const std::string& got,
                                const std::string& hint);
[[nodiscard]] bool is_usage_error(const Error& error);

/// Everything that costing and planning a job needs; members refer to each other, so it stays where it was made.
struct PlanningInputs {
  Job job;
  model::ModelGraph graph;
  cluster::ResourceGraph resources;
  std::optional<cluster::Profile> profile;
  std::unique_ptr<cost_model::CostModel> cost;

  [[nodiscard]] planner::Request make_request() const;
};

struct PlanningOptions {
  std::string cluster_file;              // or of the catalogue; empty: the job's, else probe this machine
  std::string profile_file;              // empty: none
  std::string devices;                   // for a probe
  std::vector<std::string> constraints;  // on top of the job's
};
[[nodiscard]] Result<std::unique_ptr<PlanningInputs>> load_planning_inputs(const std::string& job_file,
                                                                           const PlanningOptions& options);

/// load_job for a JOB argument: a `.py` file is a usage error (exit 64) that says how to export.
[[nodiscard]] Result<Job> load_job_argument(const std::string& file);
[[nodiscard]] Result<Json> load_json(const std::string& file);
/// A cluster file, or where there is no such file a cluster of the catalogue (cluster/catalogue.h).
[[nodiscard]] Result<cluster::ResourceGraph> load_cluster(const std::string& file);
/// A plan file, or the output of `launch plan --format json` (its `plan`). `estimate` is set when the file has one.
[[nodiscard]] Result<plan::Plan> load_plan(const std::string& file);

/// Joins constraints of a job and of flags: a key that is given in both takes the flag's. Reads the schedule file.
[[nodiscard]] Result<planner::Constraints> merge_constraints(const planner::Constraints& job,
                                                             const std::vector<std::string>& flags);

/// Reads the file of `schedule=csv:FILE`, where there is one. Errors: of the file; every bad cell.
[[nodiscard]] Result<void> read_schedule_file(planner::Constraints& constraints);
/// Constraints that another process, in another folder, may read.
[[nodiscard]] std::vector<std::string> with_absolute_paths(std::vector<std::string> constraints);

/// "CLASS=USD": the price of one device for an hour. Errors: InvalidArgument for all bad ones, listing the classes.
[[nodiscard]] Result<void> set_prices(cluster::ResourceGraph& graph, const std::vector<std::string>& prices);

/// Writes to stdout, or to `file` when not empty.
[[nodiscard]] Result<void> write_output(const std::string& text, const std::string& file);

}  // namespace coxswain::launcher
