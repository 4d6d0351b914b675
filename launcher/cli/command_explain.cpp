// launch explain PLAN [--against PLAN]: where time and memory go, what binds, why not that other plan.
#include <CLI/CLI.hpp>

#include "launcher/cli/command.h"
#include "launcher/cli/plan_file.h"
#include "plan/program.h"
#include "planner/explain.h"

namespace coxswain::launcher {
namespace {

struct Options {
  PlanFileOptions files;
  std::string against;
  std::string format = "table";
  std::vector<std::string> prices;
};

/// A plan for something else is the wrong file; one that breaks a rule is answered for.
Result<void> check_same_job(const plan::Plan& plan, const PlanningInputs& inputs, const std::string& file) {
  std::vector<Error> problems;
  const auto compare = [&](const char* key, const std::string& expected, const std::string& got, const char* message) {
    if (expected != got)
      problems.push_back({ErrorCode::InvalidArgument, message, key, expected, got,
                          "make it for the same job and cluster: launch plan --constrain ... --out FILE"});
  };
  compare("model_hash", model::model_hash(inputs.model->graph), plan.model_hash, "the plan is for another model");
  compare("cluster_hash", cluster::cluster_hash(inputs.resources), plan.cluster_hash,
          "the plan is for another cluster");
  if (problems.empty()) return {};
  return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad plan", std::move(problems)), file);
}

Result<ExitCode> run(const Options& options) {
  COX_TRY(auto loaded, load_plan_file(options.files));
  COX_TRY_VOID(set_prices(loaded.inputs->resources, options.prices));
  plan::Plan other;
  if (!options.against.empty()) {
    COX_TRY(other, load_plan(options.against));
    COX_TRY_VOID(check_same_job(other, *loaded.inputs, options.against));
  }
  auto request = loaded.inputs->make_request();
  request.constraints = {};
  request.constraints.backend = loaded.plan.backend;
  request.capabilities = plan::kPlannable;
  COX_TRY(auto explanation, planner::explain_plan(request, loaded.plan, options.against.empty() ? nullptr : &other));
  COX_TRY_VOID(write_output(
      options.format == "json" ? to_text(planner::to_json(explanation), 2) + "\n" : planner::to_text(explanation), ""));
  return ExitCode::Done;
}

}  // namespace

void add_explain_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("explain", "where a plan's time and memory go, what binds, why not another plan");
  auto options = std::make_shared<Options>();
  add_plan_file_options(*command, options->files);
  command->add_option("--against", options->against, "another plan for the same job and cluster");
  command->add_option("--price", options->prices, "CLASS=USD, repeatable: price of one device for an hour")->take_all();
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
