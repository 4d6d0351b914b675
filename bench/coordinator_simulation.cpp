// The coordinator under simulated faults: runs in simulated time, each made by its seed, until so many faults have
// struck; then what one round of heartbeats costs (issue 6, row k; docs/reliability.md).
//   coordinator_simulation [--faults N] [--large N] [--nodes N] [--jobs N] [--seed S]
//   coordinator_simulation --run SEED [--nodes N] [--tell 1]       one run again, with what happens in it
// Without --nodes: most faults in runs of 2 to 100 nodes, then --large in runs of 10,000.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <thread>
#include <vector>

#include "bench/support/bench.h"
#include "bench/support/coordinator_world.h"
#include "bench/support/heartbeat_round.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr int kLargeRun = 10000, kRounds = 30, kMostTold = 20;

/// Of all runs so far.
struct Tally {
  std::int64_t faults = 0, runs = 0, coordinators = 0, generations = 0, nodes_lost = 0, steps = 0, inputs = 0,
               broken = 0;
  std::array<std::int64_t, kNumFaultKinds> struck{};
  std::map<int, std::int64_t> exits;
  double simulated_seconds = 0, seconds = 0, processor_seconds = 0;
};

void add(Tally& tally, const WorldResult& result) {
  tally.faults += result.num_struck;
  ++tally.runs;
  tally.coordinators += result.coordinators;
  tally.generations += result.generations;
  tally.nodes_lost += result.nodes_lost;
  tally.steps += result.steps;
  tally.inputs += result.inputs;
  tally.simulated_seconds += result.seconds;
  for (std::size_t i = 0; i < result.struck.size(); ++i) tally.struck[i] += result.struck[i];
  if (result.broken)
    ++tally.broken;
  else
    ++tally.exits[static_cast<int>(result.exit_code)];
}

std::string replay_command(std::uint64_t seed, int num_nodes) {
  return "coordinator_simulation --run " + std::to_string(seed) +
         (num_nodes > 0 ? " --nodes " + std::to_string(num_nodes) : "") + " --tell 1";
}

/// Runs of one seed after the other, in `num_jobs` threads, until `num_faults` have struck.
Tally simulate(std::uint64_t first_seed, int num_nodes, std::int64_t num_faults, int num_jobs) {
  Tally tally;
  std::mutex mutex;
  std::uint64_t next_seed = first_seed;
  const TimePoint begin = steady_clock().now();
  const std::clock_t processor_begin = std::clock();
  const auto work = [&] {
    std::unique_lock lock(mutex);
    while (tally.faults < num_faults) {
      const std::uint64_t seed = next_seed++;
      lock.unlock();
      const WorldResult result = run_scenario(make_scenario(seed, num_nodes));
      lock.lock();
      add(tally, result);
      if (result.broken && tally.broken <= kMostTold)
        std::printf("BROKEN, seed %llu: %s\n  %s\n", static_cast<unsigned long long>(seed), result.broken->c_str(),
                    replay_command(seed, num_nodes).c_str());
    }
  };
  {
    std::vector<std::jthread> jobs;
    for (int i = 0; i < num_jobs; ++i) jobs.emplace_back(work);
  }
  tally.seconds = std::chrono::duration<double>(steady_clock().now() - begin).count();
  tally.processor_seconds = static_cast<double>(std::clock() - processor_begin) / CLOCKS_PER_SEC;
  return tally;
}

void print(const std::string& title, const Tally& tally) {
  std::printf(
      "\n%s: %lld faults in %lld runs, %.1f s (%.0f faults a second; %.1f s of processor time), %lld broken "
      "invariants\n",
      title.c_str(), static_cast<long long>(tally.faults), static_cast<long long>(tally.runs), tally.seconds,
      static_cast<double>(tally.faults) / tally.seconds, tally.processor_seconds, static_cast<long long>(tally.broken));
  std::printf(
      "  %lld coordinators, %lld generations, %lld nodes lost, %lld steps, %lld inputs, %.0f simulated seconds\n",
      static_cast<long long>(tally.coordinators), static_cast<long long>(tally.generations),
      static_cast<long long>(tally.nodes_lost), static_cast<long long>(tally.steps),
      static_cast<long long>(tally.inputs), tally.simulated_seconds);
  for (std::size_t i = 0; i < tally.struck.size(); ++i)
    std::printf("  %8lld x %s\n", static_cast<long long>(tally.struck[i]),
                std::string(to_text(static_cast<FaultKind>(i))).c_str());
  for (const auto& [code, count] : tally.exits)
    std::printf("  %8lld runs ended with exit %d\n", static_cast<long long>(count), code);
}

int replay(std::uint64_t seed, int num_nodes, bool tells) {
  World world(make_scenario(seed, num_nodes));
  if (tells)
    world.tell = [&world](const std::string& what) { std::printf("%9.3f  %s\n", world.time.seconds(), what.c_str()); };
  const WorldResult result = world.run();
  std::printf("seed %llu: %d faults, %d coordinators, %d generations, exit %d: %s\n",
              static_cast<unsigned long long>(seed), result.num_struck, result.coordinators, result.generations,
              static_cast<int>(result.exit_code), result.broken ? result.broken->c_str() : "no invariant broken");
  return result.broken ? 1 : 0;
}

void add_checks(Report& report, const std::string& name, const Tally& tally, std::int64_t wanted) {
  report.add({name + ": faults", static_cast<double>(tally.faults), 0, 0, "faults", ">= " + std::to_string(wanted),
              tally.faults >= wanted});
  report.add({name + ": broken invariants", static_cast<double>(tally.broken), 0, 0, "runs", "0", tally.broken == 0});
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "simulated faults", {"--faults", "--large", "--nodes", "--jobs", "--run", "--tell"});
  const auto number = [&](const char* name, std::int64_t otherwise) {
    return options.other.contains(name) ? std::atoll(options.other.at(name).c_str()) : otherwise;
  };
  const int num_nodes = static_cast<int>(number("--nodes", 0)), num_jobs = static_cast<int>(number("--jobs", 2));
  if (options.other.contains("--run"))
    return replay(static_cast<std::uint64_t>(number("--run", 1)), num_nodes, number("--tell", 0) != 0);

  Report report("coordinator_simulation", options);
  const std::int64_t faults = number("--faults", options.quick ? 20000 : 1000000);
  const Tally tally = simulate(options.seed, num_nodes, faults, num_jobs);
  print(num_nodes > 0 ? std::to_string(num_nodes) + " nodes" : "2 to 100 nodes", tally);
  add_checks(report, "simulated", tally, faults);
  double seconds = tally.seconds, processor_seconds = tally.processor_seconds;
  if (num_nodes == 0 && number("--large", 1) > 0) {
    const std::int64_t many = number("--large", options.quick ? 20 : 1000);
    const Tally large = simulate(options.seed, kLargeRun, many, num_jobs);
    print(std::to_string(kLargeRun) + " nodes", large);
    add_checks(report, "10,000 nodes", large, many);
    seconds += large.seconds;
    processor_seconds += large.processor_seconds;
  }
  report.add({"in all, and of processors", seconds, processor_seconds, 0, "s", "<= 600", seconds <= 600});
  std::vector<double> rounds;
  for (const Seconds round : measure_heartbeat_rounds(kLargeRun, kRounds)) rounds.push_back(1e3 * round.value);
  report.add({"a heartbeat round of 10,000 nodes", median(rounds), *std::max_element(rounds.begin(), rounds.end()), 0,
              "ms, most", "< 50", median(rounds) < 50});
  return report.finish();
}
