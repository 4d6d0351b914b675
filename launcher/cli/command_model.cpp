// launch model show | check
#include <CLI/CLI.hpp>

#include "launcher/cli/command.h"
#include "launcher/job/job_model.h"
#include "model/show.h"

namespace coxswain::launcher {
namespace {

struct Options {
  std::string model;
  std::string format = "table";
  std::int64_t sequence_length = 0;
  std::int64_t samples = 1;
};

Result<ExitCode> show(const Options& options) {
  COX_TRY(auto graph, load_model_file(options.model, options.sequence_length));
  const auto text = options.format == "json" ? to_text(model::show_json(graph, options.samples), 2) + "\n"
                                             : model::show_table(graph, options.samples);
  COX_TRY_VOID(write_output(text, ""));
  return ExitCode::Done;
}

}  // namespace

Result<ExitCode> run_model_check(const std::string& file,
                                 const std::string& format);  // in command_train.cpp: it starts a worker

void add_model_command(CLI::App& app, Action& action) {
  auto* model = app.add_subcommand("model", "look at a model, or check that it runs as it did in PyTorch");
  model->require_subcommand(1);
  auto options = std::make_shared<Options>();

  auto* show_command = model->add_subcommand("show", "operators, parameters, FLOPs, blocks, where it can be cut");
  show_command->add_option("MODEL", options->model, "a .pt2 file, a Hugging Face folder, or a config.json")->required();
  show_command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  show_command->add_option("--sequence-length", options->sequence_length, "for a configuration; default its maximum")
      ->check(CLI::PositiveNumber);
  show_command->add_option("--samples", options->samples, "samples that sizes and FLOPs are shown for")
      ->check(CLI::PositiveNumber);
  show_command->callback([&action, options] { action = [options] { return show(*options); }; });

  auto* check_command =
      model->add_subcommand("check", "run the step that the exporter recorded and compare loss and every gradient");
  check_command->add_option("MODEL", options->model, "a .pt2 file")->required();
  check_command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  check_command->callback(
      [&action, options] { action = [options] { return run_model_check(options->model, options->format); }; });
}

}  // namespace coxswain::launcher
