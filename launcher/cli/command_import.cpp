#include "launcher/cli/command_import.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "common/clock.h"
#include "launcher/cli/command.h"
#include "launcher/cli/import_report.h"
#include "plan/export.h"

namespace coxswain::launcher {
namespace {

const std::vector<std::string> kImports{"piper", "galvatron", "metis", "sailor"};
const std::vector<std::string> kExports{"megatron", "torchtitan", "deepspeed"};

std::string list_of(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const planner::ContestFamily& family_of(const std::string& format) {
  const auto& families = planner::contest_families();
  return *std::find_if(families.begin(), families.end(), [&](const auto& each) { return each.name == format; });
}

struct Solved {
  planner::ContestAnswer answer;
  double seconds = 0;
};

/// FILE is the whole problem: a job, and what else there is to say of one, has no place beside it.
Result<void> refuse_beside_import(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() == 0) continue;
    const std::string name = option->get_positional() ? "JOB" : "--" + option->get_lnames().front();
    if (name == "--import" || name == "--format" || name == "--out") continue;
    return usage_error("--import and " + name + " do not go together", "only --format and --out beside --import",
                       name + " " + option->results().front(), "the imported file is the whole problem");
  }
  return {};
}

}  // namespace

void add_exchange_options(CLI::App& command, ExchangeOptions& options) {
  options.command = &command;
  command
      .add_option("--import", options.import,
                  "plan another planner's problem by its own cost function, without a job: " + list_of(kImports))
      ->expected(2)
      ->option_text("FORMAT FILE");
  command
      .add_option("--export", options.export_format,
                  "print the plan in another tool's words, and on stderr what those cannot say: " + list_of(kExports))
      ->check(CLI::IsMember(kExports))
      ->option_text("TOOL");
}

Result<ExitCode> run_import(const ExchangeOptions& options, const std::string& output_format, const std::string& out) {
  COX_TRY_VOID(refuse_beside_import(*options.command));
  const std::string& format = options.import[0];
  if (std::find(kImports.begin(), kImports.end(), format) == kImports.end())
    return usage_error("no such format to import", list_of(kImports), format, "launch plan --import FORMAT FILE");
  std::filesystem::path file = options.import[1];
  std::error_code code;
  if (std::filesystem::is_directory(file, code)) file /= format + ".json";
  COX_TRY(const Json json, load_json(file.string()));
  auto solver = family_of(format).load(json, file);
  if (!solver) return with_path_prefix(solver.error(), file.string());
  const auto solve = [&](const planner::ContestOptions& how) -> Result<Solved> {
    const auto started = steady_clock().now();
    auto answer = (*solver)(how);
    if (!answer) return with_path_prefix(answer.error(), file.string());
    return Solved{std::move(*answer), std::chrono::duration<double>(steady_clock().now() - started).count()};
  };
  COX_TRY(const Solved solved, solve({}));
  Json document = import_json(format, solved.answer, solved.seconds);
  std::string table = import_table(format, solved.answer, solved.seconds);
  if (solved.answer.rounds_batch_up) {
    if (const auto strict = solve({.strict = true})) {
      document["dividing"] = import_json(format, strict->answer, strict->seconds);
      table += "\nthe best whose replicas x micro-batch divide the global batch:\n" +
               import_table(format, strict->answer, strict->seconds);
    }
  }
  const std::string json_text = to_text(document, 2) + "\n";
  if (!out.empty()) COX_TRY_VOID(write_output(json_text, out));
  COX_TRY_VOID(write_output(output_format == "json" ? json_text : table, ""));
  return ExitCode::Done;
}

Result<void> print_export(const plan::Plan& plan, const model::ModelGraph& model,
                          const cluster::ResourceGraph& resources, const std::string& format) {
  COX_TRY(const plan::Exported exported, plan::export_plan(plan, model, resources, *plan::parse_export_format(format)));
  COX_TRY_VOID(write_output(exported.text, ""));
  for (const std::string& each : exported.not_expressed) std::fprintf(stderr, "not expressed: %s\n", each.c_str());
  return {};
}

}  // namespace coxswain::launcher
