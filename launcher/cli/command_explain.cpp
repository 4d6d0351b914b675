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
};

Result<ExitCode> run(const Options& options) {
  COX_TRY(auto loaded, load_plan_file(options.files));
  plan::Plan other;
  if (!options.against.empty()) {
    COX_TRY(other, load_plan(options.against));
    if (auto problems = plan::validate(other, loaded.inputs->graph, loaded.inputs->resources, plan::kPlannable);
        !problems.empty())
      return with_path_prefix(combine_errors(ErrorCode::InvalidArgument, "bad plan", std::move(problems)),
                              options.against);
  }
  COX_TRY(auto explanation,
          planner::explain_plan(*loaded.inputs->cost, loaded.plan, options.against.empty() ? nullptr : &other));
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
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
