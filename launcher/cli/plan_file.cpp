#include "launcher/cli/plan_file.h"

#include <CLI/CLI.hpp>

#include <filesystem>

#include "plan/program.h"

namespace coxswain::launcher {
namespace {

std::string beside(const std::string& given, const std::string& plan, const char* name) {
  if (!given.empty()) return given;
  const auto path = std::filesystem::path(plan).parent_path() / name;
  std::error_code code;
  return std::filesystem::exists(path, code) ? path.string() : "";
}

}  // namespace

void add_plan_file_options(CLI::App& command, PlanFileOptions& options) {
  command.add_option("PLAN", options.plan, "plan file: RUN-DIR/plan-1.json, or the output of `launch plan --out`")
      ->required();
  command.add_option("--job", options.job, "job file; default job.yaml beside the plan");
  command.add_option("--cluster", options.cluster,
                     "cluster file, or hardware of the catalogue; default cluster.json beside the plan");
  command.add_option("--profile", options.profile, "profile; default profile.json beside the plan");
}

Result<PlanFile> load_plan_file(const PlanFileOptions& options) {
  PlanFile file;
  COX_TRY(file.plan, load_plan(options.plan));
  const std::string job = beside(options.job, options.plan, "job.yaml");
  const std::string cluster = beside(options.cluster, options.plan, "cluster.json");
  if (job.empty())
    return usage_error("the plan's job is needed", "--job FILE, or job.yaml beside the plan", "none",
                       "name the job that the plan was made for");
  if (cluster.empty())
    return usage_error("the plan's cluster is needed", "--cluster FILE, or cluster.json beside the plan", "none",
                       "name the cluster that the plan was made for");
  COX_TRY(file.inputs, load_planning_inputs(job, {.cluster_file = cluster,
                                                  .profile_file = beside(options.profile, options.plan, "profile.json"),
                                                  .devices = "",
                                                  .constraints = {}}));
  if (auto problems = plan::validate(file.plan, file.inputs->model->graph, file.inputs->resources, plan::kPlannable);
      !problems.empty())
    return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad plan", std::move(problems)), options.plan);
  return file;
}

}  // namespace coxswain::launcher
