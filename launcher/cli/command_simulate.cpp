// launch simulate PLAN: the plan's action lists in virtual time.
#include <CLI/CLI.hpp>

#include <cstdio>

#include "launcher/cli/command.h"
#include "launcher/cli/plan_file.h"

namespace coxswain::launcher {
namespace {

struct Options {
  PlanFileOptions files;
  std::string trace;
  std::string format = "table";
};

std::string to_table(const plan::Plan& plan, const cost_model::Simulation& simulation) {
  const auto& e = simulation.estimate;
  char line[200];
  std::string text = planner::summarize(plan) + "\n";
  std::snprintf(
      line, sizeof line,
      "step %.1f ms: forward %.1f, backward %.1f, recompute %.1f, communication %.1f, bubble %.1f, optimizer %.1f\n",
      e.step.value * 1e3, e.forward.value * 1e3, e.backward.value * 1e3, e.recompute.value * 1e3,
      e.communication_exposed.value * 1e3, e.bubble.value * 1e3, e.optimizer.value * 1e3);
  text += line;
  for (const auto& device : e.devices) {
    const auto& role = plan.roles[static_cast<std::size_t>(device.role)];
    std::snprintf(line, sizeof line, "stage %d  %-12s %4zu ranks  busy %5.1f %%  peak %.3f GiB of %.3f GiB\n",
                  role.stage, device.device.c_str(), device.ranks.size(), device.busy_fraction * 100,
                  static_cast<double>(device.peak_memory.value) / (1 << 30),
                  static_cast<double>(device.capacity.value) / (1 << 30));
    text += line;
  }
  return text;
}

Result<ExitCode> run(const Options& options) {
  COX_TRY(auto loaded, load_plan_file(options.files));
  COX_TRY(auto simulation, cost_model::simulate(*loaded.inputs->cost, loaded.plan));
  if (!options.trace.empty())
    COX_TRY_VOID(write_output(cost_model::to_chrome_trace(loaded.plan, simulation), options.trace));
  COX_TRY_VOID(write_output(options.format == "json" ? to_text(plan::to_json(simulation.estimate), 2) + "\n"
                                                     : to_table(loaded.plan, simulation),
                            ""));
  return ExitCode::Done;
}

}  // namespace

void add_simulate_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("simulate", "execute a plan in virtual time; starts nothing");
  auto options = std::make_shared<Options>();
  add_plan_file_options(*command, options->files);
  command->add_option("--trace", options->trace, "write a Chrome/Perfetto trace");
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
