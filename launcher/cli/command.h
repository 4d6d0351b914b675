#pragma once
// What the commands share: how one registers itself, and how it gets at what is planned.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/exit_code.h"
#include "common/result.h"
#include "launcher/planning/planning_inputs.h"

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
void add_serve_command(CLI::App& app, Action& action);
void add_status_command(CLI::App& app, Action& action);
void add_logs_command(CLI::App& app, Action& action);
void add_cancel_command(CLI::App& app, Action& action);
void add_agent_command(CLI::App& app, Action& action);
void add_coordinator_command(CLI::App& app, Action& action);

/// A flag of the fixed interface that this version cannot do: known, and refused by name (exit 64) when set.
void add_missing_option(CLI::App& command, const std::string& flag, const std::string& what);
/// Errors of kind "usage" (exit 64) carry this code in the CLI.
[[nodiscard]] Error usage_error(const std::string& message, const std::string& expected, const std::string& got,
                                const std::string& hint);
[[nodiscard]] bool is_usage_error(const Error& error);

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
/// Writes to stdout, or to `file` when not empty.
[[nodiscard]] Result<void> write_output(const std::string& text, const std::string& file);

}  // namespace coxswain::launcher
