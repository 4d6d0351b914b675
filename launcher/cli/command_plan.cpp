// launch plan: the dry run.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/clock.h"
#include "cost_model/uncertainty.h"
#include "launcher/cli/command.h"
#include "launcher/cli/command_import.h"
#include "launcher/cli/running.h"
#include "planner/explain.h"

namespace coxswain::launcher {
namespace {

struct Options {
  std::string job;
  PlanningOptions planning;
  RunningOptions running;
  std::string format = "table";
  std::string out;
  std::int64_t max_candidates = 200000;
  int top_k = 5;
  int threads = 1;
  bool runnable = false;
  ExchangeOptions exchange;
};

void note_what_cannot_run(const plan::Plan& plan) {
  std::string words;
  for (const std::string& word : plan::list_beyond(plan, plan::kRunnable)) words += (words.empty() ? "" : ", ") + word;
  if (!words.empty())
    std::fprintf(stderr, "note: this version plans but does not yet run %s; --runnable searches what it runs\n",
                 words.c_str());
}

void note_uncertainty(const PlanningInputs& inputs, const plan::Plan& plan) {
  if (!inputs.profile) return;
  const cost_model::Uncertainty uncertainty = cost_model::estimate_uncertainty(*inputs.cost, *inputs.profile, plan);
  if (uncertainty.num_interpolated == 0) return;
  std::fprintf(stderr,
               "note: %d of %d block times lie between measured numbers of samples; compute is uncertain by %.1f %%\n",
               uncertainty.num_interpolated, uncertainty.num_blocks, uncertainty.step_fraction * 100);
}

Result<ExitCode> run(const Options& options) {
  if (!options.exchange.import.empty()) return run_import(options.exchange, options.format, options.out);
  if (options.job.empty())
    return usage_error("nothing to plan", "JOB, or --import FORMAT FILE", "neither", "launch plan job.yaml");
  PlanningOptions planning = options.planning;
  COX_TRY_VOID(resolve_running(options.running, planning));
  COX_TRY(auto inputs, load_planning_inputs(options.job, planning));
  COX_TRY(auto running, load_running(options.running, *inputs));
  auto request = inputs->make_request();
  request.running = std::move(running);
  request.max_candidates = options.max_candidates;
  request.top_k = options.top_k;
  request.threads = options.threads;
  request.capabilities = options.runnable ? plan::kRunnable : plan::kPlannable;
  const auto started = steady_clock().now();
  COX_TRY(auto result, planner::find_plan(request));
  result.search_seconds = std::chrono::duration<double>(steady_clock().now() - started).count();
  const std::string json = to_text(planner::to_json(result), 2) + "\n";
  if (!options.out.empty()) COX_TRY_VOID(write_output(json, options.out));
  if (!options.exchange.export_format.empty()) {
    COX_TRY_VOID(print_export(result.plan, inputs->graph, inputs->resources, options.exchange.export_format));
    return ExitCode::Done;
  }
  COX_TRY_VOID(write_output(options.format == "json" ? json : planner::explain(result), ""));
  note_uncertainty(*inputs, result.plan);
  note_what_cannot_run(result.plan);
  return ExitCode::Done;
}

}  // namespace

void add_plan_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("plan", "dry run: the best plan, runners-up and reasons; trains nothing");
  auto options = std::make_shared<Options>();
  command->add_option("JOB", options->job, "job file (YAML or JSON)");
  command->add_option(
      "--cluster", options->planning.cluster_file,
      "cluster file, or hardware of the catalogue such as 16x8xh100-sxm,ib400 (`launch catalogue` lists "
      "it); default: the job's, else this machine is probed");
  command->add_option("--devices", options->planning.devices, "devices to probe: `2xcpu`, `cpu@1.0,cpu@0.4`, `auto`");
  command
      ->add_option("--constrain", options->planning.constraints,
                   "KEY=VALUE[,VALUE...], repeatable: data tensor pipeline context expert zero micro samples recompute "
                   "schedule offload cuts")
      ->take_all();
  command->add_option("--profile", options->planning.profile_file, "profile.json of `launch probe --job` or of a run");
  command->add_option("--max-candidates", options->max_candidates, "budget of the search, in candidates")
      ->check(CLI::PositiveNumber);
  command->add_option("--top", options->top_k, "runners-up to show")->check(CLI::Range(0, 100));
  command->add_option("--threads", options->threads, "threads of the search; the result does not depend on it")
      ->check(CLI::Range(1, 256));
  command->add_flag("--runnable", options->runnable, "only what `launch train` of this version executes");
  command->add_option("--out", options->out, "also write the plan as JSON");
  add_running_options(*command, options->running);
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  add_missing_option(*command, "--objective", "plan for cost");
  add_missing_option(*command, "--max-step-seconds", "plan under a time limit");
  add_missing_option(*command, "--max-cost-per-step", "plan under a cost limit");
  add_missing_option(*command, "--calibrate", "correct the model from a run");
  add_exchange_options(*command, options->exchange);
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
