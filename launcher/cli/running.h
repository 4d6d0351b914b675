#pragma once
// What `launch plan` takes to plan on from a running plan: the plan, its cluster, and what happened to it.
#include "launcher/cli/command.h"

namespace coxswain::launcher {

struct RunningOptions {
  std::string plan, cluster, out_cluster;  // files; cluster: that of the running plan
  std::optional<double> horizon_seconds;
  std::vector<std::string> lost, slower, added;
};
void add_running_options(CLI::App& command, RunningOptions& options);

/// Before loading: fills in the files that lie beside the running plan. Errors: usage, for flags that need --running.
[[nodiscard]] Result<void> resolve_running(const RunningOptions& options, PlanningOptions& planning);

/// After loading: changes the cluster of `inputs` to the one to plan for (profile and cost model with it) and says
/// where the running plan's devices are in it. Nothing without --running. Errors: those of the files and of the change,
/// all problems at once; InvalidArgument for a plan of another cluster.
[[nodiscard]] Result<std::optional<planner::RunningPlan>> load_running(const RunningOptions& options,
                                                                       PlanningInputs& inputs);

}  // namespace coxswain::launcher
