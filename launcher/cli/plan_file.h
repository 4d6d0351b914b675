#pragma once
// A PLAN argument with what it was made from: job, cluster and profile lie beside it in a run directory, or are named.
#include "launcher/cli/command.h"

namespace coxswain::launcher {

struct PlanFileOptions {
  std::string plan;
  std::string job, cluster, profile;  // empty: job.yaml, cluster.json, profile.json beside the plan
};

struct PlanFile {
  plan::Plan plan;
  std::unique_ptr<PlanningInputs> inputs;
};

void add_plan_file_options(CLI::App& command, PlanFileOptions& options);
/// Loads and validates. Errors: of each file; InvalidArgument for a plan for another model or cluster.
[[nodiscard]] Result<PlanFile> load_plan_file(const PlanFileOptions& options);

}  // namespace coxswain::launcher
