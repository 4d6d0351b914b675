// Faults into real runs, at random instants: a run of a small GPT over four ranks is repeated, disturbed, until so many
// faults were made; each time its losses must be those of an undisturbed run (to the bit, and where a node was lost
// within 1e-5 for 20 steps), and nothing may be left behind. Times are from the fault to the line in events.jsonl that
// says that the run goes on. Kinds: bench/support/fault_kinds.cpp.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>

#include "bench/support/disturbed_run.h"
#include "bench/support/train_runs.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<std::size_t>(share * static_cast<double>(values.size())))];
}

/// Seconds of each kill of a rank under torchrun, until all of its ranks step again.
std::vector<double> peer_seconds(int kills, std::uint64_t seed, Report& report) {
  const auto source = source_folder();
  const auto result =
      run_process({(source / ".venv/bin/python").string(), (source / "bench/peers/torchrun_recovery.py").string(),
                   "--kills", std::to_string(kills), "--ranks", "4", "--seed", std::to_string(seed)},
                  60.0 + 40.0 * kills);
  const auto json = parse_json(result.output);
  if (result.exit_code != 0 || !json) {
    std::fprintf(stderr, "the peer failed (%d): %s\n", result.exit_code, result.errors.c_str());
    std::exit(1);
  }
  report.peer("torchrun", (*json)["version"].string());
  std::vector<double> seconds;
  for (const Json& one : (*json)["seconds"].array()) seconds.push_back(one.number());
  return seconds;
}

/// What came of all runs.
struct Tally {
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, int> made, judged, right;
  std::map<std::string, double> goodput;
  std::vector<double> used_again;
  double worst_change = 0;
  int faults = 0, runs = 0, failed = 0, unlike = 0, left = 0;
  std::size_t rows = 0;

  void add(const DisturbedRun& run) {
    ++runs;
    rows += run.rows;
    for (const auto& [name, values] : run.faults.seconds)
      seconds[name].insert(seconds[name].end(), values.begin(), values.end());
    for (const auto& [name, count] : run.faults.made) made[name] += count;
    for (const auto& [name, count] : run.faults.judged) judged[name] += count;
    for (const auto& [name, count] : run.faults.right) right[name] += count;
    for (const auto& [name, value] : run.goodput) goodput[name] += value;
    used_again.insert(used_again.end(), run.faults.used_again.begin(), run.faults.used_again.end());
    faults += run.num_faults;
    failed += run.exit_code == 0 ? 0 : 1;
    unlike += run.exit_code == 0 && !run.same ? 1 : 0;
    if (!run.same_plan) worst_change = std::max(worst_change, run.far);
    left += run.left;
  }
};

void tell(const DisturbedRun& run, int number) {
  std::printf("run %d: %d faults, exit %d, %zu rows of %zu steps, losses %s (%.1e); %s\n", number, run.num_faults,
              run.exit_code, run.rows, run.steps, run.same ? "equal" : "UNLIKE", run.far, run.plans.c_str());
  for (const auto& leak : run.leaks) std::printf("  left behind: %s\n", leak.c_str());
  std::fflush(stdout);
}

void report_times(const Tally& tally, Report& report, int peer_kills, std::uint64_t seed) {
  for (const auto& [name, count] : tally.made) {
    const auto found = tally.seconds.find(name);
    if (found == tally.seconds.end()) {
      std::printf("%-24s %4d faults\n", name.c_str(), count);
      continue;
    }
    const std::vector<double>& values = found->second;
    const double middle = median(values), most = at_share(values, 0.95);
    std::printf("%-24s %4d faults, %4zu seen to go on: median %.2f s, 95 %% %.2f s, worst %.2f s\n", name.c_str(),
                count, values.size(), middle, most, at_share(values, 1));
    report.extra()[name] = JsonObject{{"faults", count}, {"median", middle}, {"share_95", most}};
    if (name.starts_with("coordinator")) report.add({name + ": back, 95 %", most, 5, most / 5, "s", "<= 5", most <= 5});
    if (name.starts_with("node") || name == "agent-killed")
      report.add({name + ": goes on under a new plan, 95 %", most, 5, most / 5, "s", "<= 5", most <= 5});
    if (name != "rank-killed") continue;
    const auto peer = peer_kills > 0 ? peer_seconds(peer_kills, seed, report) : std::vector<double>{HUGE_VAL};
    report.add({name + ": goes on, median", middle, median(peer), middle / median(peer), "s", "<= 1.5", middle <= 1.5});
    report.add(
        {name + ": goes on, 95 %", most, at_share(peer, 0.95), most / at_share(peer, 0.95), "s", "<= 3", most <= 3});
  }
  if (tally.used_again.empty()) return;
  const double most = at_share(tally.used_again, 0.95);
  std::printf("%-24s %4zu times: median %.2f s, 95 %% %.2f s, worst %.2f s\n", "node used again",
              tally.used_again.size(), median(tally.used_again), most, at_share(tally.used_again, 1));
  report.add({"node that is back: used again, 95 %", most, 10, most / 10, "s", "<= 10", most <= 10});
}

void report_rest(const Tally& tally, const std::vector<FaultKind>& kinds, int steps, Report& report) {
  std::string classes;
  for (const auto& [name, value] : tally.goodput)
    classes += (classes.empty() ? "" : ", ") + name + " " + std::to_string(value);
  std::printf("seconds by class: %s\n", classes.c_str());
  int judged = 0, right = 0;
  for (const auto& [name, count] : tally.judged) judged += count;
  for (const auto& [name, count] : tally.right) right += count;
  if (judged > 0) {
    const double share = static_cast<double>(right) / judged;
    report.add({"told as what they are, of " + std::to_string(judged), share, 0.99, share / 0.99, "fraction", ">= 0.99",
                share >= 0.99});
  }
  report.add({"runs that ended otherwise than with exit 0", 1.0 * tally.failed, 0, 0, "runs", "0", tally.failed == 0});
  report.add({"runs with other losses than undisturbed", 1.0 * tally.unlike, 0, 0, "runs", "0", tally.unlike == 0});
  report.add({"processes, ports, files, segments left behind", 1.0 * tally.left, 0, 0, "things", "0", tally.left == 0});
  report.extra()["worst_loss_difference_after_a_new_plan"] = tally.worst_change;
  const bool only_coordinator = std::all_of(kinds.begin(), kinds.end(), [](const FaultKind& kind) {
    return std::string(kind.sign) == "coordinator_restarted";
  });
  if (!only_coordinator) return;
  const double again = static_cast<double>(tally.rows) - static_cast<double>(tally.runs) * steps;
  report.add({"steps taken twice or lost", again, 0, 0, "steps", "0", again == 0});
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse_options(argc, argv, "faults into real runs",
                                  {"--faults", "--kinds", "--pause", "--every", "--steps", "--devices", "--save-every",
                                   "--nodes", "--peer-kills", "--apart", "--return", "--keep"});
  const auto flag = [&](const char* name, const char* otherwise) {
    return options.other.contains(name) ? options.other.at(name) : std::string(otherwise);
  };
  Report report("chaos", options);
  RunSettings settings;
  settings.nodes = std::atoi(flag("--nodes", "1").c_str());
  settings.devices = flag("--devices", settings.nodes == 1 ? "4xcpu" : "2xcpu");
  std::optional<NodeNamespaces> apart;
  if (flag("--apart", "0") != "0") settings.apart = &apart.emplace(settings.nodes);
  settings.keep = flag("--keep", "");
  settings.steps = std::atoi(flag("--steps", "300").c_str());
  settings.save_every = std::atoi(flag("--save-every", "10").c_str());
  FaultPlan plan;
  plan.pause_seconds = std::atof(flag("--pause", "1.5").c_str());
  plan.every_seconds = std::atof(flag("--every", "0").c_str());
  plan.nodes_return = flag("--return", "0") != "0";
  plan.kinds = fault_kinds_of(flag("--kinds", "all"), settings.nodes, settings.apart != nullptr);
  const int wanted = std::atoi(flag("--faults", options.quick ? "10" : "200").c_str());

  // Over several nodes one that is worth them: the plan is the planner's.
  settings.example = settings.nodes == 1
                         ? make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1})
                         : make_example({.layers = 8, .width = 256, .heads = 8, .context = 64, .dropout = 0.1});
  const auto calm = make_scratch_folder("calm");
  const Steps expected = run_undisturbed(settings, calm);
  std::mt19937_64 random(options.seed);
  std::vector<FaultKind> deck;
  Tally tally;
  while (tally.faults < wanted && tally.failed < 5) {
    // Every fourth run measures and plans anew, so that faults come then too.
    settings.plan = tally.runs % 4 == 3 ? std::filesystem::path() : calm / "run" / "plan-1.json";
    const DisturbedRun run = disturb_run(settings, plan, deck, random, expected, 1 << 30);
    tally.add(run);
    tell(run, tally.runs);
  }
  report_times(tally, report, std::atoi(flag("--peer-kills", "0").c_str()), options.seed);
  report_rest(tally, plan.kinds, settings.steps, report);
  return report.finish();
}
