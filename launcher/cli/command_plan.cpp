// launch plan: the dry run.
#include <CLI/CLI.hpp>
#include <cstdio>

#include <filesystem>

#include "common/bytes_io.h"
#include "cost_model/calibration.h"
#include "cost_model/uncertainty.h"
#include "launcher/cli/command.h"
#include "launcher/cli/command_import.h"
#include "launcher/cli/running.h"
#include "launcher/planning/plan_query.h"
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
  std::string objective = "time";
  std::optional<double> max_step_seconds, max_cost_per_step;
  std::vector<std::string> prices;
  std::string calibrate;
  ExchangeOptions exchange;
};

void note_what_cannot_run(const plan::Plan& plan) {
  std::string words;
  for (const std::string& word : plan::list_beyond(plan, plan::kRunnable)) words += (words.empty() ? "" : ", ") + word;
  if (!words.empty())
    std::fprintf(stderr, "note: this version plans but does not yet run %s; --runnable searches what it runs\n",
                 words.c_str());
}

/// `name` beside the metrics, where there is one.
std::string beside(const std::string& metrics, const std::string& name) {
  const auto path = std::filesystem::path(metrics).parent_path() / name;
  std::error_code code;
  return std::filesystem::exists(path, code) ? path.string() : "";
}

Result<cost_model::Calibration> load_calibration(const std::string& file, const cluster::ResourceGraph& resources) {
  COX_TRY(std::string text, read_file(file));
  Json plan_file;
  const std::string plan = beside(file, "plan-" + std::to_string(cost_model::last_generation(text)) + ".json");
  if (!plan.empty()) {
    COX_TRY(plan_file, load_json(plan));
  }
  auto calibration = cost_model::read_calibration(resources, text, plan.empty() ? nullptr : &plan_file);
  if (!calibration) return with_path_prefix(calibration.error(), file);
  return calibration;
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
  if (!options.calibrate.empty() && planning.profile_file.empty())
    planning.profile_file = beside(options.calibrate, "profile.json");
  COX_TRY(auto inputs, load_planning_inputs(options.job, planning));
  COX_TRY_VOID(set_prices(inputs->resources, options.prices));
  COX_TRY(auto running, load_running(options.running, *inputs));
  PlanQuery query;
  query.running = std::move(running);
  std::unique_ptr<cost_model::CostModel> calibrated;
  if (!options.calibrate.empty()) {
    COX_TRY(const auto calibration, load_calibration(options.calibrate, inputs->resources));
    calibrated = cost_model::make_calibrated_cost(*inputs->cost, calibration);
    query.cost = calibrated.get();
    for (const std::string& line : calibration.notes) std::fprintf(stderr, "calibrated: %s\n", line.c_str());
  }
  query.objective = options.objective == "cost" ? planner::Objective::Cost : planner::Objective::Time;
  if (options.max_step_seconds) query.max_step = Seconds(*options.max_step_seconds);
  if (options.max_cost_per_step) query.max_cost_per_step = cluster::Usd(*options.max_cost_per_step);
  query.max_candidates = options.max_candidates;
  query.top_k = options.top_k;
  query.threads = options.threads;
  query.runnable = options.runnable;
  COX_TRY(const planner::PlanResult result, answer_query(*inputs, query));
  const std::string json = to_text(planner::to_json(result), 2) + "\n";
  if (!options.out.empty()) COX_TRY_VOID(write_output(json, options.out));
  if (!options.exchange.export_format.empty()) {
    COX_TRY_VOID(print_export(result.plan, inputs->model->graph, inputs->resources, options.exchange.export_format));
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
                   "KEY=VALUE[,VALUE...][,KEY=...], repeatable: data tensor pipeline context expert zero micro samples "
                   "recompute "
                   "schedule offload cuts")
      ->take_all();
  command->add_option("--profile", options->planning.profile_file, "profile.json of `launch probe --job` or of a run");
  command->add_option("--objective", options->objective, "what is least: time of a step, or its cost")
      ->check(CLI::IsMember({"time", "cost"}));
  command->add_option("--max-step-seconds", options->max_step_seconds, "only plans whose step takes no longer")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-cost-per-step", options->max_cost_per_step, "only plans whose step costs no more USD")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--price", options->prices,
                   "CLASS=USD, repeatable: price of one device for an hour, instead of the cluster's")
      ->take_all();
  command->add_option("--calibrate", options->calibrate,
                      "RUN-DIR/metrics.jsonl of a run: corrects the cost model from it");
  command->add_option("--max-candidates", options->max_candidates, "budget of the search, in candidates")
      ->check(CLI::PositiveNumber);
  command->add_option("--top", options->top_k, "runners-up to show")->check(CLI::Range(0, 100));
  command->add_option("--threads", options->threads, "threads of the search; the result does not depend on it")
      ->check(CLI::Range(1, 256));
  command->add_flag("--runnable", options->runnable, "only what `launch train` of this version executes");
  command->add_option("--out", options->out, "also write the plan as JSON");
  add_running_options(*command, options->running);
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  add_exchange_options(*command, options->exchange);
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
