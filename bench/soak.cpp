// Many runs under all kinds of faults (bench/support/fault_kinds.cpp), with nobody to help them: a rank, a node or the
// whole run that ended starts again by itself, as a scheduler would do it. Parts, each one run, are kept as JSON in a
// folder; a soak that was ended goes on where it stood, and its report is of all of them. What has to hold: every run
// comes to its end with the losses of an undisturbed one, what was done is told as what it is, nothing is left behind.
//
// Goodput, out of the runs' own reports (docs/failures.md): with T the seconds of all runs, P those that slower plans
// took beyond the first, U those of steps that count, F the first start of each run (none of a fault's), N the faults:
//   in steps that count, slower plans apart          U / (T - P)
//   lost to a fault, all that is not of those        L = (T - P - U - F) / N
//   by those losses, at one fault in ten minutes     1 - L / 600 s
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <random>

#include "bench/support/disturbed_run.h"
#include "bench/support/run_files.h"
#include "bench/support/train_runs.h"
#include "bench/support/waits.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace fs = std::filesystem;

namespace {

constexpr double kGoodput = 0.8, kRareGoodput = 0.98, kRareSeconds = 600;
// From this on what a fault costs is small beside the time between two.
constexpr double kRareFrom = 30;
constexpr int kMostReferences = 5;

struct Soak {
  int faults = 1000;
  double every = 5, seconds = 0;  // of this call; 0: until all are made
  fs::path parts;
  std::string kinds = "all";
  std::uint64_t seed = 1;
  int nodes = 0, steps = 0;  // of a run; 0: by its number, by `every` and `nodes`
};

Json counts_to_json(const std::map<std::string, int>& counts) {
  JsonObject object;
  for (const auto& [name, count] : counts) object[name] = count;
  return object;
}

Json seconds_to_json(const std::map<std::string, double>& seconds) {
  JsonObject object;
  for (const auto& [name, value] : seconds) object[name] = value;
  return object;
}

Json texts_to_json(const std::vector<std::string>& texts) { return JsonArray(texts.begin(), texts.end()); }

std::string date() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

Json part_to_json(const Soak& soak, std::uint64_t seed, int nodes, const DisturbedRun& run) {
  JsonObject seconds;
  for (const auto& [name, values] : run.faults.seconds) seconds[name] = JsonArray(values.begin(), values.end());
  return JsonObject{{"commit", source_commit()},
                    {"date", date()},
                    {"seed", static_cast<std::int64_t>(seed)},
                    {"every_seconds", soak.every},
                    {"nodes", nodes},
                    {"faults", run.num_faults},
                    {"made", counts_to_json(run.faults.made)},
                    {"judged", counts_to_json(run.faults.judged)},
                    {"right", counts_to_json(run.faults.right)},
                    {"wrong", texts_to_json(run.faults.wrong)},
                    {"seconds", seconds},
                    {"used_again", JsonArray(run.faults.used_again.begin(), run.faults.used_again.end())},
                    {"goodput", seconds_to_json(run.goodput)},
                    {"first_start_seconds", run.first_start_seconds},
                    {"exit_code", run.exit_code},
                    {"same_losses", run.same},
                    {"farthest_loss", run.far},
                    {"leaks", texts_to_json(run.leaks)}};
}

/// Of all parts of one `every`.
struct Sum {
  int next = 0;  // part's number
  int parts = 0, faults = 0, failed = 0, unlike = 0, left = 0, judged = 0, right = 0;
  double first_starts = 0;
  std::map<std::string, int> made;
  std::map<std::string, std::vector<double>> seconds;
  std::map<std::string, double> goodput;
  std::map<std::string, int> commits;

  void add(const Json& part) {
    ++parts;
    faults += static_cast<int>(part["faults"].integer());
    failed += part["exit_code"] == Json(0) ? 0 : 1;
    unlike += part["exit_code"] == Json(0) && part["same_losses"] != Json(true) ? 1 : 0;
    left += static_cast<int>(part["leaks"].array().size());
    first_starts += part["first_start_seconds"].number();
    ++commits[part["commit"].string()];
    for (const auto& [name, count] : part["made"].object()) made[name] += static_cast<int>(count.integer());
    for (const auto& [name, count] : part["judged"].object()) judged += static_cast<int>(count.integer());
    for (const auto& [name, count] : part["right"].object()) right += static_cast<int>(count.integer());
    for (const auto& [name, value] : part["goodput"].object()) goodput[name] += value.number();
    for (const auto& [name, values] : part["seconds"].object())
      for (const Json& value : values.array()) seconds[name].push_back(value.number());
  }
  [[nodiscard]] double of(const char* name) const {
    const auto found = goodput.find(name);
    return found == goodput.end() ? 0 : found->second;
  }
};

std::string prefix_of(const Soak& soak) { return "every-" + std::to_string(static_cast<int>(soak.every)) + "-part-"; }

Sum sum_parts(const Soak& soak) {
  Sum sum;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(soak.parts))
    if (entry.path().filename().string().starts_with(prefix_of(soak))) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  // One that was moved away leaves its number free for nobody.
  if (!files.empty()) sum.next = 1 + std::atoi(files.back().filename().c_str() + prefix_of(soak).size());
  for (const auto& file : files) sum.add(or_end(parse_json(or_end(read_file(file)))));
  return sum;
}

/// A model, its plan and its losses undisturbed; made once for each commit.
struct Reference {
  RunSettings settings;
  Steps expected;
};
Reference make_reference(const Soak& soak, int nodes, const NodeNamespaces* apart) {
  Reference reference;
  RunSettings& settings = reference.settings;
  settings.nodes = nodes;
  settings.apart = apart;
  settings.devices = nodes == 1 ? "4xcpu" : "2xcpu";
  settings.save_every = 10;
  settings.keep = soak.parts / "kept";
  // About a dozen faults in a run, of those that are rare five.
  const int by_itself = soak.every < kRareFrom ? 1000 : 2000;
  settings.steps = soak.steps > 0 ? soak.steps : by_itself;
  const fs::path folder = soak.parts / ("reference-" + std::to_string(nodes) + "-" + std::to_string(settings.steps) +
                                        "-" + source_commit());
  settings.example = folder;
  settings.plan = folder / "calm" / "run" / "plan-1.json";
  reference.expected = read_steps({folder / "calm" / "run"});
  const bool is_whole = static_cast<int>(reference.expected.losses.size()) == settings.steps;
  if (is_whole && count_events(folder / "calm" / "run", "replanned") == 0) return reference;
  fs::remove_all(folder);
  const fs::path example = nodes == 1
                               ? make_example({.layers = 4, .width = 64, .heads = 4, .context = 64, .dropout = 0.1})
                               : make_example({.layers = 4, .width = 128, .heads = 4, .context = 64, .dropout = 0.1});
  fs::copy(example, folder, fs::copy_options::recursive);
  RunSettings anew = settings;
  anew.plan.clear();
  // One that moved to another plan on the way adds up in another order from there on.
  for (int tries = 0; tries < kMostReferences; ++tries) {
    fs::remove_all(folder / "calm");
    fs::create_directories(folder / "calm");
    reference.expected = run_undisturbed(anew, folder / "calm");
    if (count_events(folder / "calm" / "run", "replanned") == 0) return reference;
  }
  std::fprintf(stderr, "the undisturbed run moved to another plan %d times: the machine is too busy\n",
               kMostReferences);
  std::exit(1);
}

/// One part. Every fourth of those with many faults is on one node, whose ranks share a disk.
void make_part(const Soak& soak, int number, int most_faults) {
  const int by_number = soak.every < kRareFrom && number % 4 == 3 ? 1 : 2;
  const int nodes = soak.nodes > 0 ? soak.nodes : by_number;
  const std::uint64_t seed = soak.seed * 10000 + static_cast<std::uint64_t>(number);
  std::optional<NodeNamespaces> apart;
  if (nodes > 1) apart.emplace(nodes);
  const Reference reference = make_reference(soak, nodes, apart ? &*apart : nullptr);
  FaultPlan plan;
  plan.every_seconds = soak.every;
  plan.nodes_return = true;
  plan.kinds = fault_kinds_of(soak.kinds, nodes, apart.has_value());
  std::mt19937_64 random(seed);
  std::vector<FaultKind> deck;
  const TimePoint began = steady_clock().now();
  const DisturbedRun run = disturb_run(reference.settings, plan, deck, random, reference.expected, most_faults);
  char name[32];
  std::snprintf(name, sizeof name, "%04d.json", number);
  or_end(write_file(soak.parts / (prefix_of(soak) + name), to_text(part_to_json(soak, seed, nodes, run), 2) + "\n"));
  std::printf("part %d (seed %llu, %d nodes): %d faults in %.0f s, exit %d, losses %s (%.1e), %d left behind\n", number,
              static_cast<unsigned long long>(seed), nodes, run.num_faults, seconds_since(began), run.exit_code,
              run.same ? "equal" : "UNLIKE", run.far, run.left);
  for (const auto& leak : run.leaks) std::printf("  left behind: %s\n", leak.c_str());
  std::fflush(stdout);
}

void report_times(const Sum& sum, Report& report) {
  for (const auto& [name, count] : sum.made) {
    const auto found = sum.seconds.find(name);
    if (found == sum.seconds.end())
      std::printf("  %-24s %4d faults\n", name.c_str(), count);
    else
      std::printf("  %-24s %4d faults, goes on after %.2f s (median), worst %.2f s\n", name.c_str(), count,
                  median(found->second), *std::max_element(found->second.begin(), found->second.end()));
    report.extra()[name] = count;
  }
}

void report_goodput(const Soak& soak, const Sum& sum, Report& report) {
  const double total = sum.of("total_seconds"), useful = sum.of("useful_seconds");
  const double slower = sum.of("slower_plan_seconds");
  if (total <= slower || sum.faults == 0) return;
  for (const auto& [name, value] : sum.goodput)
    std::printf("  %-24s %9.2f s %5.1f %%\n", name.c_str(), value, 100 * value / total);
  std::printf("  %-24s %9.2f s (of start)\n", "first starts", sum.first_starts);
  const double fraction = useful / (total - slower);
  const double lost = (total - slower - useful - sum.first_starts) / sum.faults;
  const double rare = 1 - lost / kRareSeconds;
  std::printf("  lost to a fault: %.2f s\n", lost);
  const bool checked = soak.every >= kRareFrom;
  report.add({"goodput, slower plans apart", fraction, kGoodput, fraction / kGoodput, "fraction",
              checked ? ">= 0.80" : "printed", !checked || fraction >= kGoodput});
  report.add({"by those losses at one fault in ten minutes", rare, kRareGoodput, rare / kRareGoodput, "fraction",
              checked ? ">= 0.98" : "printed", !checked || rare >= kRareGoodput});
}

int report_soak(const Soak& soak, const Options& options) {
  const Sum sum = sum_parts(soak);
  Report report("soak", options);
  std::string commits;
  for (const auto& [name, count] : sum.commits) commits += " " + name + " (" + std::to_string(count) + ")";
  std::printf("one fault in %.0f s: %d faults in %d runs of commits%s\n", soak.every, sum.faults, sum.parts,
              commits.c_str());
  report_times(sum, report);
  report_goodput(soak, sum, report);
  const double share = sum.judged > 0 ? static_cast<double>(sum.right) / sum.judged : 1;
  report.add({"told as what they are, of " + std::to_string(sum.judged), share, 0.99, share / 0.99, "fraction",
              ">= 0.99", share >= 0.99});
  report.add({"runs that did not come to their end", 1.0 * sum.failed, 0, 0, "runs", "0", sum.failed == 0});
  report.add({"runs with other losses than undisturbed", 1.0 * sum.unlike, 0, 0, "runs", "0", sum.unlike == 0});
  report.add({"processes, ports, files, segments left behind", 1.0 * sum.left, 0, 0, "things", "0", sum.left == 0});
  if (sum.faults < soak.faults)
    std::printf("remain: %d of %d faults; the same command goes on\n", soak.faults - sum.faults, soak.faults);
  return report.finish();
}

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "many runs under all kinds of faults, in parts",
                    {"--faults", "--every", "--parts", "--seconds", "--kinds", "--nodes", "--steps", "--report"});
  const auto flag = [&](const char* name, const char* otherwise) {
    return options.other.contains(name) ? options.other.at(name) : std::string(otherwise);
  };
  Soak soak;
  soak.faults = std::atoi(flag("--faults", options.quick ? "5" : "1000").c_str());
  soak.every = std::atof(flag("--every", "5").c_str());
  soak.seconds = std::atof(flag("--seconds", "0").c_str());
  soak.kinds = flag("--kinds", "all");
  soak.nodes = std::atoi(flag("--nodes", "0").c_str());
  soak.steps = std::atoi(flag("--steps", "0").c_str());
  soak.seed = options.seed;
  const std::string parts = flag("--parts", "");
  soak.parts = parts.empty() ? make_scratch_folder("soak") : fs::absolute(parts);
  fs::create_directories(soak.parts / "kept");
  const bool only_report = flag("--report", "0") != "0";
  const TimePoint began = steady_clock().now();
  for (Sum sum = sum_parts(soak); !only_report && sum.faults < soak.faults; sum = sum_parts(soak)) {
    if (soak.seconds > 0 && seconds_since(began) > soak.seconds) break;
    make_part(soak, sum.next, soak.faults - sum.faults);
  }
  return report_soak(soak, options);
}
