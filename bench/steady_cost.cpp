// What supervision costs a run that nothing disturbs: two ranks of a small GPT on two cores, steps of 0.1 to 0.25 s,
// every setting at its default. Issue row j.
//
// Processor seconds, from /proc over a stretch of the run: `launch`, coordinator and agent whole, and of each rank
// every thread that neither computes nor moves data (its process less those threads, so that what threads that have
// ended took counts too: the writer of a checkpoint), as a share of all processes of the run.
//
// Step time on against off, in blocks of one run. There is no switch for supervision, so `launch`, coordinator and
// agent are stopped with SIGSTOP for less than a silence, and go on for as long: ranks step meanwhile, and their
// reports wait in the socket. What stays on is what lives in the ranks (action watch, peer watch, link to the agent):
// its part of the processor time is told, its part of the step time cannot be. Each stopped block is compared with the
// mean of its neighbours; off and on are alike when the 95 % interval of the median ratio holds 1.
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "bench/support/open_run.h"
#include "bench/support/processes.h"
#include "bench/support/train_runs.h"
#include "common/json.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kRanks = 2, kWarmSteps = 40, kSteps = 100'000;
constexpr double kMostShare = 0.01;
// Below the 2 s after which a silent peer is lost, less a heartbeat.
constexpr double kBlockSeconds = 1.5;
// Until the reports that waited have been written.
constexpr double kSettleSeconds = 0.1;

/// Threads of a rank that do the training itself, by name; the first one of the process is another.
bool trains(const std::string& name) { return name.starts_with("pt_autograd") || name == "operations"; }

/// Processor seconds so far.
struct Taken {
  std::map<std::string, double> supervisors;  // by role
  std::map<std::string, double> threads;      // of the ranks, by name, the first one as "computes"
  double ranks = 0;                           // whole
};

Taken look(int launch) {
  Taken taken;
  for (const int pid : family_of(launch)) {
    const std::string role = role_of(pid);
    if (role != "worker") {
      taken.supervisors[role] += processor_seconds(pid);
      continue;
    }
    taken.ranks += processor_seconds(pid);
    for (const auto& [id, thread] : threads_of(pid))
      taken.threads[id == pid || trains(thread.name) ? "computes: " + (id == pid ? "main" : thread.name)
                                                     : thread.name] += thread.seconds;
  }
  return taken;
}

std::map<std::string, double> difference(const std::map<std::string, double>& after,
                                         const std::map<std::string, double>& before) {
  std::map<std::string, double> result;
  for (const auto& [name, seconds] : after) {
    const auto found = before.find(name);
    result[name] = seconds - (found == before.end() ? 0 : found->second);
  }
  return result;
}

void report_share(const Taken& before, const Taken& after, double seconds, Report& report) {
  const double ranks = after.ranks - before.ranks;
  double supervisors = 0, computing = 0, named = 0;
  std::printf("processor time in %.0f s, of %.1f s of the ranks:\n", seconds, ranks);
  for (const auto& [role, took] : difference(after.supervisors, before.supervisors)) {
    std::printf("  %-24s %8.2f s\n", role.c_str(), took);
    report.extra()[role + "_seconds"] = took;
    supervisors += took;
  }
  for (const auto& [name, took] : difference(after.threads, before.threads)) {
    const bool computes = name.starts_with("computes: ");
    (computes ? computing : named) += took;
    std::printf("  ranks, %-17s %8.2f s\n", name.c_str(), took);
    report.extra()["ranks " + name + " seconds"] = took;
  }
  const double beside = std::max(ranks - computing, named), total = supervisors + ranks;
  std::printf("  ranks, ended threads     %8.2f s\n", beside - named);
  // Where other programs hold the cores the ranks get less, and the share below is of less.
  std::printf("  of the time of %d cores: supervision %.2f %%, ranks %.0f %%\n", kRanks,
              100 * (supervisors + beside) / (kRanks * seconds), 100 * ranks / (kRanks * seconds));
  const auto add = [&](const std::string& name, double part) {
    const double share = part / total;
    report.add({name, 100 * share, 0, share / kMostShare, "% of all", "<= 1", share <= kMostShare});
  };
  add("processor time, launch, coordinator, agent", supervisors);
  add("processor time, those and threads in ranks", supervisors + beside);
}

/// Steps [first, last]; which of them were whole in the block is known to one step.
struct Block {
  bool on = true;
  int first = 0, last = 0;
};

/// `launch`, coordinator and agent. Whoever watches is stopped first and goes on last, so that nobody sees a stopped
/// one.
class Supervisors {
 public:
  explicit Supervisors(int launch) {
    pids_.push_back(launch);
    for (const char* role : {"coordinator", "agent"})
      for (const int pid : family_of(launch))
        if (role_of(pid) == role) pids_.push_back(pid);
  }
  ~Supervisors() { go_on(); }
  Supervisors(const Supervisors&) = delete;
  Supervisors& operator=(const Supervisors&) = delete;
  [[nodiscard]] std::size_t count() const { return pids_.size(); }
  void stop() {
    for (const int pid : pids_) kill(pid, SIGSTOP);
  }
  void go_on() {
    for (auto pid = pids_.rbegin(); pid != pids_.rend(); ++pid) kill(*pid, SIGCONT);
  }

 private:
  std::vector<int> pids_;
};

std::vector<Block> make_blocks(OpenRun& run, int pairs) {
  Supervisors supervisors(run.launch());
  if (supervisors.count() != 3) {
    std::fprintf(stderr, "steady_cost: %zu processes supervise the run, not 3\n", supervisors.count());
    std::exit(1);
  }
  std::vector<Block> blocks;
  int begin = run.steps();
  for (int pair = 0; pair < pairs; ++pair) {
    run.wait(kBlockSeconds);
    const int stopped = run.steps();
    // The step under way belongs to neither, nor the one that ended in the moment of the signal.
    blocks.push_back({true, begin + 2, stopped - 1});
    supervisors.stop();
    run.wait(kBlockSeconds);
    supervisors.go_on();
    run.wait(kSettleSeconds);
    begin = run.steps();
    blocks.push_back({false, stopped + 2, begin - 2});
  }
  run.wait(kBlockSeconds);
  blocks.push_back({true, begin + 2, run.steps() - 1});
  return blocks;
}

/// Median of each block's steps; nothing where it has too few.
std::vector<double> medians_of(const std::vector<Block>& blocks, const std::map<std::int64_t, double>& seconds) {
  std::vector<double> medians;
  for (const Block& block : blocks) {
    std::vector<double> steps;
    for (int step = block.first; step <= block.last; ++step)
      if (const auto found = seconds.find(step); found != seconds.end()) steps.push_back(found->second);
    medians.push_back(steps.size() < 3 ? NAN : median(steps));
  }
  return medians;
}

/// Between which values of a sample its median lies with 95 %, by order statistics.
struct Interval {
  double low = 0, middle = 0, high = 0;
};
Interval interval_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const double count = static_cast<double>(values.size()), reach = 0.98 * std::sqrt(count);
  const auto at = [&](double place) { return values[static_cast<std::size_t>(std::clamp(place, 0.0, count - 1))]; };
  return {at(std::floor(count / 2 - reach)), median(values), at(std::ceil(count / 2 + reach))};
}

void report_blocks(const std::vector<Block>& blocks, const std::map<std::int64_t, double>& seconds, Report& report) {
  const std::vector<double> medians = medians_of(blocks, seconds);
  std::vector<double> ratios, control, on, off;
  for (std::size_t i = 1; i + 1 < blocks.size(); i += 2) {  // each stopped one
    const double beside = (medians[i - 1] + medians[i + 1]) / 2;
    if (!std::isfinite(beside) || !std::isfinite(medians[i])) continue;
    ratios.push_back(beside / medians[i]);
    control.push_back(medians[i + 1] / medians[i - 1]);
    on.push_back(medians[i + 1]);
    off.push_back(medians[i]);
  }
  if (ratios.empty()) {
    std::fprintf(stderr, "steady_cost: blocks without steps\n");
    std::exit(1);
  }
  const Interval gain = interval_of(ratios), noise = interval_of(control);
  std::printf(
      "on over off, %zu pairs: median %.4f, 95 %% interval %.4f to %.4f; on over on before: %.4f, %.4f to %.4f\n",
      ratios.size(), gain.middle, gain.low, gain.high, noise.middle, noise.low, noise.high);
  const bool within = gain.low <= 1;
  report.add({"step time, on (ours) against off (peer)", median(on), median(off), gain.middle, "s", "interval holds 1",
              within});
  report.extra()["on_over_off"] = JsonArray{gain.low, gain.middle, gain.high};
  report.extra()["on_over_on"] = JsonArray{noise.low, noise.middle, noise.high};
}

std::map<std::int64_t, double> step_seconds(const std::filesystem::path& run) {
  std::map<std::int64_t, double> seconds;
  for (const Json& row : read_lines(run / "metrics.jsonl"))
    seconds[row["step"].integer()] = row["step_seconds"].number();
  return seconds;
}

/// What must not have happened: then the blocks compare something else.
int disturbances(const std::filesystem::path& run) {
  const std::set<std::string> calm{"cluster_probed", "plan_chosen", "generation_started", "checkpoint_saved"};
  int count = 0;
  for (const Json& event : read_lines(run / "events.jsonl")) {
    const std::string& type = event["type"].string();
    for (const char* bad : {"restarted", "failed", "lost", "recovered", "replanned"}) {
      if (calm.contains(type) || type.find(bad) == std::string::npos) continue;
      std::printf("  event: %s\n", to_text(event).c_str());
      ++count;
    }
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "what supervision costs a run", {"--seconds", "--pairs", "--batch"});
  const auto option = [&](const char* name, const char* otherwise) {
    return std::stoi(options.other.contains(name) ? options.other.at(name) : otherwise);
  };
  const int seconds = option("--seconds", options.quick ? "30" : "150");
  const int pairs = option("--pairs", options.quick ? "8" : "80");
  Report report("steady_cost", options);
  const TrainJob job{
      .example = make_example({}), .global_batch = option("--batch", "4"), .steps = kSteps, .plan = "{data: 2}"};
  OpenRun run(job, {"--devices", "2xcpu"});
  run.wait_steps(kWarmSteps, 300);
  const Taken before = look(run.launch());
  run.wait(seconds);
  report_share(before, look(run.launch()), seconds, report);
  const std::vector<Block> blocks = make_blocks(run, pairs);
  run.stop();
  report_blocks(blocks, step_seconds(run.folder()), report);
  const int disturbed = disturbances(run.folder());
  report.add({"events that stopping made", 1.0 * disturbed, 0, 0, "events", "0", disturbed == 0});
  return report.finish();
}
