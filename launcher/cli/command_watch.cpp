// launch status and logs: a run as its files show it, once or as it goes on.
#include <CLI/CLI.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "launcher/cli/command.h"
#include "launcher/cli/remote_job.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/control/signals.h"
#include "launcher/watching/run_view.h"

namespace coxswain::launcher {
namespace {

constexpr double kLookSeconds = 0.5;

struct WatchOptions {
  std::string run, state = "coxswain-state", format = "table";
  bool follow = false;
  std::vector<int> ranks;
  std::string stream = "both", containing;
  RemoteOptions remote;
};

void add_run_options(CLI::App& command, WatchOptions& options) {
  command.add_option("RUN", options.run, "a run's folder, or a job's id; default: the newest of runs/");
  command.add_option("--state", options.state, "state folder of the `launch serve` that has the job")
      ->capture_default_str();
  add_remote_options(command, options.remote);
}

/// Calls `look` now and then until it says that nothing more will come, or a signal ends it.
template <class Look>
void follow(Look look) {
  EventQueue<int> signals;
  const SignalWatcher watcher([&signals](int number) { signals.push(number); });
  while (look())
    if (signals.pop(after(steady_clock().now(), kLookSeconds))) return;
}

Result<ExitCode> status(const WatchOptions& options) {
  if (options.remote.is_remote()) return show_remote_job(options.remote, options.run, options.format, options.follow);
  COX_TRY(const auto folder, find_run(options.run, options.state));
  COX_TRY(RunWatcher watcher, RunWatcher::open(folder));
  const auto print = [&options](const RunView& view) {
    const std::string text =
        options.format == "json" ? to_text(to_json(view), options.follow ? 0 : 2) + "\n" : to_table(view);
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
    return std::count(text.begin(), text.end(), '\n');
  };
  auto lines = print(watcher.look());
  if (!options.follow) return ExitCode::Done;
  const bool in_place = options.format == "table" && ::isatty(STDOUT_FILENO) == 1;
  std::int64_t step = watcher.look().step;
  if (watcher.look().ended) return ExitCode::Done;
  follow([&] {
    const RunView& view = watcher.look();
    if (in_place) std::printf("\033[%ldA\033[J", static_cast<long>(lines));
    if (in_place || view.step != step || view.ended) lines = print(view);
    step = view.step;
    return !view.ended;
  });
  return ExitCode::Done;
}

/// A service has no merged stream.
Result<ExitCode> remote_logs(const WatchOptions& options) {
  if (options.ranks.size() > 1 || !options.containing.empty())
    return usage_error("a service gives the output of one rank, or of `launch train` itself", "--rank N at most once",
                       options.containing.empty() ? "several" : "--grep", "filter what is printed, as with grep");
  return show_remote_logs(options.remote, options.run, options.ranks.empty() ? -1 : options.ranks.front(),
                          options.stream == "stderr" ? "stderr" : "stdout", options.follow);
}

Result<ExitCode> logs(const WatchOptions& options) {
  if (options.remote.is_remote()) return remote_logs(options);
  COX_TRY(const auto folder, find_run(options.run, options.state));
  COX_TRY(RunWatcher watcher, RunWatcher::open(folder));
  LogMerger merger(folder, {options.ranks, options.stream != "stderr", options.stream != "stdout", options.containing});
  const auto print = [&merger](bool rest) {
    const std::string text = merger.next(rest);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  if (options.follow) {
    follow([&] {
      const bool ended = watcher.look().ended;
      print(false);
      return !ended;
    });
  }
  print(true);
  return ExitCode::Done;
}

}  // namespace

void add_status_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("status", "how far a run is, measured beside predicted");
  auto options = std::make_shared<WatchOptions>();
  add_run_options(*command, *options);
  command->add_flag("-f,--follow", options->follow, "until it has ended");
  command->add_option("--format", options->format, "table or json")->check(CLI::IsMember({"table", "json"}));
  command->callback([&action, options] { action = [options] { return status(*options); }; });
}

void add_logs_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("logs", "what the ranks of a run print, merged");
  auto options = std::make_shared<WatchOptions>();
  add_run_options(*command, *options);
  command->add_flag("-f,--follow", options->follow, "until the run has ended");
  command->add_option("--rank", options->ranks, "of these ranks alone; repeatable")->check(CLI::NonNegativeNumber);
  command->add_option("--stream", options->stream, "stdout, stderr or both")
      ->check(CLI::IsMember({"stdout", "stderr", "both"}));
  command->add_option("--grep", options->containing, "lines that contain this text");
  command->callback([&action, options] { action = [options] { return logs(*options); }; });
}

}  // namespace coxswain::launcher
