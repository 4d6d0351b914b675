#include "launcher/cli/cli.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>

#include "common/error.h"
#include "launcher/cli/command.h"

namespace coxswain::launcher {
namespace {

constexpr const char* kUsageMark = "usage";

// Flags accept `-` and `_`: --nproc_per_node is --nproc-per-node.
std::vector<std::string> normalise(int argc, char** argv) {
  std::vector<std::string> arguments;
  for (int i = 1; i < argc; ++i) {
    std::string text = argv[i];
    if (text.starts_with("--")) {
      const auto end = std::min(text.find('='), text.size());
      std::replace(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
    }
    arguments.push_back(std::move(text));
  }
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
  return arguments;
}

int finish(const Result<ExitCode>& result) {
  if (result) return static_cast<int>(*result);
  Error error = result.error();
  const bool usage = is_usage_error(error);
  if (usage) error.path = "command line";
  std::fputs(to_text(error).c_str(), stderr);
  return static_cast<int>(usage ? ExitCode::Usage : exit_code_for(error.code));
}

}  // namespace

Error usage_error(const std::string& message, const std::string& expected, const std::string& got,
                  const std::string& hint) {
  return {ErrorCode::InvalidArgument, message, kUsageMark, expected, got, hint};
}

bool is_usage_error(const Error& error) { return error.path == kUsageMark; }

void add_missing_option(CLI::App& command, const std::string& flag, const std::string& what) {
  command
      .add_option_function<std::vector<std::string>>(
          flag,
          [flag, what](const std::vector<std::string>&) {
            throw CLI::ValidationError(flag, "this version cannot " + what + "; leave the flag out");
          },
          "not in this version: " + what)
      ->expected(0, 1)
      ->group("Not in this version");
}

int run_cli(int argc, char** argv) {
  CLI::App app{"Coxswain finds the parallel plan that trains your model soonest on the devices there are, and runs it.",
               "launch"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "coxswain 0.1.0");
  app.footer(
      "Exit codes: 0 done, 1 failed (may be retried), 64 usage, 65 bad job, plan, model or cluster file, 69 no "
      "feasible plan,\n"
      "71 this machine lacks something, 75 stopped on request, 93 retrying cannot help, 128+n killed by signal n.");
  Action action;
  add_train_command(app, action);
  add_plan_command(app, action);
  add_explain_command(app, action);
  add_simulate_command(app, action);
  add_validate_command(app, action);
  add_probe_command(app, action);
  add_catalogue_command(app, action);
  add_model_command(app, action);
  add_export_command(app, action);
  add_serve_command(app, action);
  add_status_command(app, action);
  add_logs_command(app, action);
  add_cancel_command(app, action);
  add_agent_command(app, action);
  add_coordinator_command(app, action);
  try {
    app.parse(normalise(argc, argv));
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    app.exit(e, std::cout, std::cerr);
    return static_cast<int>(ExitCode::Usage);
  }
  try {
    return finish(action());
  } catch (const std::exception& e) {
    std::fputs(to_text(Error{ErrorCode::Internal, std::string("this is our bug: ") + e.what(), "launch", "", "",
                             "report it with the command line"})
                   .c_str(),
               stderr);
    return static_cast<int>(ExitCode::Hopeless);
  }
}

}  // namespace coxswain::launcher
