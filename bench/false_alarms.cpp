// Steps that vary tenfold, with checkpoints, and nothing that fails: nobody may say that something did (issue row c).
// A run of a small GPT over four ranks; all of them are stopped and let go on twenty times a second, for a share of the
// time that changes every few seconds, between none and nineteen twentieths. Detection has its default limits.
//   false_alarms [--seconds S] [--seed S]      an hour unless told otherwise
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <random>

#include "bench/support/open_run.h"
#include "bench/support/processes.h"
#include "bench/support/train_runs.h"
#include "bench/support/waits.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr double kPeriodSeconds = 0.05, kMostSlower = 20, kMeanSeconds = 5, kReportSeconds = 300;
constexpr int kWarmSteps = 40;
constexpr double kStartSeconds = 240;

/// The ranks of a run. However it is left, they go on.
class Ranks {
 public:
  explicit Ranks(int launch) {
    for (const int pid : family_of(launch))
      if (role_of(pid) == "worker") pids_.push_back(pid);
  }
  ~Ranks() { send(SIGCONT); }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  /// One period in which they work for one `slower`-th of the time.
  void work(double slower) const {
    const double works = kPeriodSeconds / slower;
    if (works < kPeriodSeconds) {
      send(SIGSTOP);
      wait(kPeriodSeconds - works);
      send(SIGCONT);
    }
    wait(works);
  }

 private:
  void send(int signal) const {
    for (const int pid : pids_) kill(pid, signal);
  }
  std::vector<int> pids_;
};

std::map<std::string, int> events_by_type(const std::filesystem::path& run) {
  std::map<std::string, int> count;
  for (const Json& event : read_lines(run / "events.jsonl")) ++count[event["type"].string()];
  return count;
}

/// The share-th smallest step.
double step_at(const std::filesystem::path& run, double share) {
  std::vector<double> seconds;
  for (const Json& row : read_lines(run / "metrics.jsonl"))
    if (row["step"].integer() > kWarmSteps) seconds.push_back(row["step_seconds"].number());
  if (seconds.empty()) return 0;
  std::sort(seconds.begin(), seconds.end());
  return seconds[std::min(seconds.size() - 1, static_cast<std::size_t>(share * static_cast<double>(seconds.size())))];
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "steps that vary tenfold, and no alarm", {"--seconds"});
  const double wanted = options.other.contains("--seconds") ? std::stod(options.other.at("--seconds"))
                        : options.quick                     ? 60
                                                            : 3600;
  TrainJob job;
  job.example = make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1});
  job.context = 64;
  job.global_batch = 8;
  job.steps = 10'000'000;
  job.plan = "{data: 2, pipeline: 2}";
  OpenRun run(job, {"--devices", "4xcpu"});
  run.wait_steps(kWarmSteps, kStartSeconds);
  std::mt19937_64 random(options.seed);
  const TimePoint began = steady_clock().now();
  const auto elapsed = [&] { return seconds_since(began); };
  {
    double told = 0;
    while (elapsed() < wanted) {
      // As often twice as slow as not, as four times as twice.
      const double slower = std::pow(kMostSlower, std::uniform_real_distribution<double>(0, 1)(random));
      const double until = elapsed() + std::exponential_distribution<double>(1 / kMeanSeconds)(random);
      // A run that moves to another plan has other processes.
      const Ranks ranks(run.launch());
      while (elapsed() < std::min(until, wanted)) ranks.work(slower);
      const auto events = events_by_type(run.folder());
      const bool failed = events.contains("worker_failed") || events.contains("node_lost");
      if (elapsed() - told < kReportSeconds && !failed) continue;
      told = elapsed();
      std::printf("%.0f s, %d steps:", told, run.steps());
      for (const auto& [type, count] : events) std::printf(" %s %d", type.c_str(), count);
      std::printf("\n");
      std::fflush(stdout);
      if (failed) break;  // other ranks run by now
    }
  }
  const double seconds = elapsed();
  run.stop();
  auto events = events_by_type(run.folder());
  Report report("false_alarms", options);
  const int alarms =
      events["worker_failed"] + events["node_lost"] + events["recovered"] + events["coordinator_restarted"];
  const double spread = step_at(run.folder(), 0.99) / step_at(run.folder(), 0.01);
  report.add({"seconds", seconds, wanted, seconds / wanted, "s", "all", seconds >= wanted});
  report.add({"steps, slow over fast (99 % over 1 %)", spread, 10, spread / 10, "ratio", ">= 10", spread >= 10});
  report.add({"checkpoints", 1.0 * events["checkpoint_saved"], 1, 0, "saved", ">= 1", events["checkpoint_saved"] >= 1});
  report.add({"alarms", 1.0 * alarms, 0, 0, "events", "0", alarms == 0});
  return report.finish();
}
