// launch validate PLAN|JOB|CLUSTER: all problems of a file, whatever it is.
#include <CLI/CLI.hpp>

#include <filesystem>

#include "launcher/cli/command.h"
#include "launcher/job/job_model.h"
#include "plan/program.h"

namespace coxswain::launcher {
namespace {

struct Options {
  std::string file;
  std::string job;
  std::string cluster;
};

// A plan alone can be checked for its form; against a job and a cluster for everything.
Result<void> validate_plan(const Json& json, const Options& options) {
  auto plan = plan::plan_from_json(json["plan"].is_object() ? json["plan"] : json);
  if (!plan) return with_path_prefix(plan.error(), options.file);
  if (options.job.empty()) return {};
  COX_TRY(Job job, load_job(options.job));
  COX_TRY(auto graph, load_job_model(job));
  const std::string cluster_file = options.cluster.empty() ? job.cluster_file.string() : options.cluster;
  if (cluster_file.empty())
    return usage_error("a plan is checked against a cluster", "--cluster FILE", "none",
                       "name the cluster.json that the plan was made for");
  COX_TRY(auto resources, load_cluster(cluster_file));
  auto problems = plan::validate(*plan, graph, resources);
  if (problems.empty()) return {};
  return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad plan", std::move(problems)), options.file);
}

Result<ExitCode> run(const Options& options) {
  const auto extension = std::filesystem::path(options.file).extension();
  std::string kind = "job";
  if (extension == ".json") {
    COX_TRY(Json json, load_json(options.file));
    if (json["device_classes"].is_array()) {
      kind = "cluster";
      COX_TRY_VOID([&]() -> Result<void> {
        COX_TRY([[maybe_unused]] auto graph, load_cluster(options.file));
        return {};
      }());
    } else if (json["plan"].is_object() || json["stages"].is_array()) {
      kind = "plan";
      COX_TRY_VOID(validate_plan(json, options));
    }
  }
  if (kind == "job") {
    COX_TRY([[maybe_unused]] Job job, load_job_argument(options.file));
  }
  COX_TRY_VOID(write_output(options.file + ": valid " + kind + "\n", ""));
  return ExitCode::Done;
}

}  // namespace

void add_validate_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("validate", "print all problems of a plan, job or cluster file");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "plan, job or cluster file")->required();
  command->add_option("--job", options->job, "for a plan: the job whose model it is for");
  command->add_option("--cluster", options->cluster, "for a plan: the cluster that it is for");
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
