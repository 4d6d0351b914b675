#include "bench/support/disturbed_run.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "bench/support/bench.h"
#include "bench/support/processes.h"

namespace coxswain::bench {
namespace {

namespace fs = std::filesystem;

constexpr double kFarthest = 1e-5;
constexpr double kEndSeconds = 180;  // of a run that is disturbed no more

std::set<std::string> shared_memory() {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator("/dev/shm")) names.insert(entry.path().filename());
  return names;
}

/// What is left of a run, in words.
class Leaks {
 public:
  Leaks() : segments_(shared_memory()) {}

  void watch(const NodeRun& run) {
    for (const int launch : run.launches)
      for (const int pid : family_of(launch)) pids_.insert(pid);
  }

  [[nodiscard]] std::vector<std::string> find(const RunSettings& settings, const NodeRun& run,
                                              const Disturbance& faults) const {
    std::vector<std::string> found;
    for (const int pid : pids_)
      if (lives(pid)) found.push_back("process " + std::to_string(pid) + " " + role_of(pid));
    for (const auto& name : shared_memory())
      if (!segments_.contains(name)) found.push_back("segment " + name);
    for (int node = 0; settings.apart != nullptr && node < settings.nodes; ++node)
      if (const int ports = settings.apart->count_listening(node); ports > 0)
        found.push_back(std::to_string(ports) + " ports of node " + std::to_string(node));
    std::vector<std::string> names = faults.intruders;
    // A node that was killed as a whole took its temporary files with it.
    for (std::size_t node = 0; node < run.launches.size(); ++node)
      if (!faults.killed_nodes.contains(run.launches[node])) names.push_back(std::to_string(node));
    for (const auto& name : names) {
      std::error_code none;
      for (const auto& entry : fs::directory_iterator(temporary_of(run.folder, name), none))
        found.push_back("temporary " + entry.path().string());
    }
    return found;
  }

 private:
  std::set<std::string> segments_;
  std::set<int> pids_;
};

/// Mounts beneath `folder`.
int count_mounts(const fs::path& folder) {
  std::ifstream mounts("/proc/self/mounts");
  int count = 0;
  for (std::string line; std::getline(mounts, line);) count += line.find(folder.string()) != std::string::npos ? 1 : 0;
  return count;
}

void compare(const RunSettings& settings, const NodeRun& run, const Steps& expected, DisturbedRun& result) {
  const Steps got = read_steps(run.runs);
  result.rows = got.rows;
  result.steps = got.losses.size();
  result.far = farthest_after_changes(run.runs, got, expected);
  // A run that planned anew, or plans for fewer nodes, adds up in another order.
  const bool moved = std::any_of(run.runs.begin(), run.runs.end(),
                                 [](const fs::path& one) { return count_events(one, "replanned") > 0; });
  result.same_plan = !settings.plan.empty() && !result.faults.lost_nodes && !moved;
  result.same =
      got.whole && (result.same_plan ? got.losses == expected.losses
                                     : got.losses.size() == expected.losses.size() && result.far <= kFarthest);
}

}  // namespace

DisturbedRun disturb_run(const RunSettings& settings, const FaultPlan& plan, std::vector<FaultKind>& deck,
                         std::mt19937_64& random, const Steps& expected, int most_faults) {
  const fs::path folder = make_scratch_folder("disturbed");
  Leaks leaks;
  NodeRun run = start_run(settings, folder);
  Disturber disturber(settings, plan, deck, random, run);
  DisturbedRun result;
  do {
    leaks.watch(run);
    result.num_faults = 0;
    for (const auto& [name, count] : disturber.result().made) result.num_faults += count;
  } while (result.num_faults < most_faults && disturber.disturb());
  leaks.watch(run);
  result.exit_code = disturber.result().exit_code ? *disturber.result().exit_code : wait_run(run, kEndSeconds);
  result.faults = disturber.result();
  result.num_faults = 0;
  for (const auto& [name, count] : result.faults.made) result.num_faults += count;
  compare(settings, run, expected, result);
  result.plans = plans_of(run.runs);
  add_goodput(run.runs, result.goodput);
  result.first_start_seconds = goodput_seconds(run.runs.front(), "start_seconds");
  result.leaks = leaks.find(settings, run, result.faults);
  end_run(settings, run);
  if (const int mounts = count_mounts(folder); mounts > 0) result.leaks.push_back(std::to_string(mounts) + " mounts");
  result.left = static_cast<int>(result.leaks.size());
  if (result.exit_code != 0) std::printf("%s", read_text(folder / "output0.errors").c_str());
  const bool well = result.exit_code == 0 && result.same && result.faults.wrong.empty() && result.left == 0;
  std::error_code ignored;
  if (!well && !settings.keep.empty())
    fs::copy(folder, settings.keep / folder.filename(), fs::copy_options::recursive, ignored);
  fs::remove_all(folder, ignored);
  return result;
}

Steps run_undisturbed(const RunSettings& settings, const fs::path& folder) {
  const NodeRun run = start_run(settings, folder);
  const int code = wait_run(run, 900);
  end_run(settings, run);
  if (code == 0) return read_steps(run.runs);
  std::fprintf(stderr, "the undisturbed run failed:\n%s", read_text(folder / "output0.errors").c_str());
  std::exit(1);
}

}  // namespace coxswain::bench
