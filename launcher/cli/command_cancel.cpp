// launch cancel: a job of a service ends, with a checkpoint.
#include <CLI/CLI.hpp>

#include "launcher/cli/command.h"
#include "launcher/cli/remote_job.h"

namespace coxswain::launcher {
namespace {

struct Options {
  std::string id;
  RemoteOptions remote;
};

Result<ExitCode> run(const Options& options) {
  if (options.remote.is_remote()) return cancel_remote_job(options.remote, options.id);
  return usage_error("which service has the job is not said", "--service URL", "nothing",
                     "a run of `launch train` saves and ends on Ctrl-C, or on SIGTERM to it");
}

}  // namespace

void add_cancel_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("cancel", "end a job of a service: one that runs saves a checkpoint first");
  auto options = std::make_shared<Options>();
  command->add_option("JOB-ID", options->id, "of the job")->required();
  add_remote_options(*command, options->remote);
  command->callback([&action, options] { action = [options] { return run(*options); }; });
}

}  // namespace coxswain::launcher
