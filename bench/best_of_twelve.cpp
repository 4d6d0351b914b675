// One real machine: twelve feasible plans for the demo model on unequal CPU devices, all trained in this run,
// interleaved. The planner's choice, its runners-up, and plans that a person would try. Measured once: the cluster and
// the profile that the planner chose by. Issue row j.
#include <algorithm>
#include <cstdio>
#include <set>

#include "bench/support/train_runs.h"
#include "common/bytes_io.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

struct Candidate {
  std::string name;
  std::filesystem::path file;
  double predicted = 0;
  std::vector<double> measured;
};

/// Constraints of plans that a person would try on a fast and a slow device, batch 32.
const std::vector<std::vector<std::string>>& by_hand() {
  static const std::vector<std::vector<std::string>> kPlans{
      {"data=2", "pipeline=1", "samples=[16,16]"},
      {"data=2", "pipeline=1", "samples=[23,9]"},
      {"data=1", "pipeline=1", "micro=32"},
      {"pipeline=2", "data=1", "cuts=even", "micro=4", "schedule=1f1b"},
      {"data=2", "pipeline=1", "samples=[12,4]"},
      {"pipeline=2", "data=1", "cuts=[7]", "micro=4", "schedule=1f1b"},
      {"data=1", "pipeline=1", "micro=8"},
      {"pipeline=2", "data=1", "cuts=[7]", "micro=8", "schedule=gpipe"},
      {"data=2", "pipeline=1", "samples=[25,7]"},
      {"data=2", "pipeline=1", "samples=[6,2]"},
      {"pipeline=2", "data=1", "cuts=[8]", "micro=2", "schedule=1f1b"},
      {"data=2", "pipeline=1", "samples=[20,12]"},
      {"pipeline=2", "data=1", "cuts=even", "micro=8", "schedule=gpipe"},
      {"data=1", "pipeline=1", "micro=16"},
      {"pipeline=2", "data=1", "cuts=[6]", "micro=4", "schedule=1f1b"},
      {"data=2", "pipeline=1", "samples=[5,3]"},
  };
  return kPlans;
}

/// Exits 1 with what the program said when it fails.
ProcessResult run_or_exit(const std::vector<std::string>& arguments, double limit_seconds) {
  auto result = run_process(arguments, limit_seconds);
  if (result.exit_code == 0) return result;
  std::fprintf(stderr, "%s %s failed (%d)\n%s", arguments[0].c_str(), arguments[1].c_str(), result.exit_code,
               result.errors.c_str());
  std::exit(1);
}

/// Plans for one job, and beside them the one cluster.json and profile.json that all are predicted and run by: two
/// profiles of a shared machine differ by more than the plans do.
class PlanList {
 public:
  PlanList(std::filesystem::path programs, std::filesystem::path job, const std::string& devices, std::size_t most)
      : programs_(std::move(programs)), job_(std::move(job)), folder_(make_scratch_folder("plans")), most_(most) {
    run_or_exit(
        {launch(), "probe", "--job", job_.string(), "--devices", devices, "--out", (folder_ / "cluster.json").string()},
        600);
  }

  /// The choice and its runners-up.
  void add_found() {
    const Json result = *parse_json(run_or_exit(plan_line({"--top", "5"}), 120).output);
    add("chosen: ", result);
    for (const Json& runner : result["runners_up"].array()) add("runner-up: ", runner);
  }

  void add_by_hand() {
    for (const auto& constraints : by_hand()) {
      if (candidates_.size() >= most_) return;
      std::vector<std::string> flags{"--top", "0"};
      for (const std::string& constraint : constraints) flags.insert(flags.end(), {"--constrain", constraint});
      const auto result = run_process(plan_line(flags), 120);
      if (result.exit_code == 0)
        add("by hand: ", *parse_json(result.output));
      else
        std::fprintf(stderr, "no plan (%d): %s\n", result.exit_code, result.errors.c_str());
    }
  }

  [[nodiscard]] std::vector<Candidate>& candidates() { return candidates_; }

 private:
  [[nodiscard]] std::string launch() const { return (programs_ / "launch").string(); }

  [[nodiscard]] std::vector<std::string> plan_line(const std::vector<std::string>& flags) const {
    std::vector<std::string> line{launch(),      "plan",
                                  job_.string(), "--runnable",
                                  "--format",    "json",
                                  "--cluster",   (folder_ / "cluster.json").string(),
                                  "--profile",   (folder_ / "profile.json").string()};
    line.insert(line.end(), flags.begin(), flags.end());
    return line;
  }

  void add(const std::string& origin, const Json& found) {
    const Json& plan = found["plan"];
    if (candidates_.size() >= most_ || !seen_.insert(to_text(plan)).second) return;
    const auto file = folder_ / ("plan-" + std::to_string(candidates_.size()) + ".json");
    const auto written = write_file(file.string(), to_text(Json(JsonObject{{"plan", plan}}), 2) + "\n");
    if (!written) std::fputs(to_text(written.error()).c_str(), stderr);
    candidates_.push_back({origin + found["summary"].string(), file, found["estimate"]["step_seconds"].number(), {}});
  }

  std::filesystem::path programs_, job_, folder_;
  std::size_t most_;
  std::set<std::string> seen_;
  std::vector<Candidate> candidates_;
};

/// Trains every plan once; false where a run failed or was predicted otherwise than the plan was chosen by.
bool run_round(std::vector<Candidate>& candidates, const TrainJob& job, const std::string& devices, int round) {
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    // Every round from another start, so that no plan always follows the same one.
    Candidate& one = candidates[(i + static_cast<std::size_t>(round) * 5) % candidates.size()];
    const TrainRun run = run_train(job, {"--devices", devices, "--plan", one.file.string()}, 600);
    if (!run.ok || run.predicted_step != one.predicted) {
      std::fprintf(stderr, "%s: predicted %.6f s, in the run %.6f s. %s\n", one.name.c_str(), one.predicted,
                   run.predicted_step, run.failure.c_str());
      return false;
    }
    one.measured.push_back(run.measured_step);
    std::printf("round %d  %-76s predicted %8.1f ms  measured %8.1f ms\n", round + 1, one.name.c_str(),
                one.predicted * 1e3, run.measured_step * 1e3);
    std::fflush(stdout);
  }
  return true;
}

/// Pairs whose measured steps differ by 5 %, and how many of them the prediction ranks as measured.
std::pair<int, int> count_ranked_pairs(const std::vector<Candidate>& candidates) {
  int pairs = 0, right = 0;
  for (const Candidate& a : candidates)
    for (const Candidate& b : candidates) {
      if (median(a.measured) * 1.05 > median(b.measured)) continue;
      ++pairs;
      right += a.predicted < b.predicted ? 1 : 0;
    }
  return {right, pairs};
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "the planner's choice among twelve plans, all measured",
                                        {"--devices", "--rounds", "--plans", "--steps", "--programs"});
  const auto option = [&](const char* name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const std::string devices = option("--devices", "cpu@1.0,cpu@0.4");
  const int rounds = std::stoi(option("--rounds", options.quick ? "1" : "3"));
  const int steps = std::stoi(option("--steps", "10"));
  const auto most = static_cast<std::size_t>(std::stoi(option("--plans", "12")));
  const std::filesystem::path programs = option("--programs", program_folder().string());
  Report report("best_of_twelve", options);

  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  const TrainJob job{.example = example,
                     .context = 128,
                     .global_batch = 32,
                     .steps = steps,
                     .plan = "",
                     .programs = programs,
                     .first_measured_step = 3};
  PlanList list(programs, write_job(job, make_scratch_folder("job")), devices, most);
  list.add_found();
  list.add_by_hand();
  std::vector<Candidate>& candidates = list.candidates();
  double seconds = 0;
  for (const Candidate& one : candidates) seconds += rounds * (steps * one.predicted + 1);
  std::printf("%zu plans, %d rounds of %d steps: about %.0f minutes\n", candidates.size(), rounds, steps, seconds / 60);
  std::fflush(stdout);
  for (int round = 0; round < rounds; ++round)
    if (!run_round(candidates, job, devices, round)) return 1;

  const Candidate* best = &candidates.front();
  JsonArray rows;
  for (const Candidate& one : candidates) {
    if (median(one.measured) < median(best->measured)) best = &one;
    std::printf("  %-76s predicted %8.1f ms  measured %8.1f ms\n", one.name.c_str(), one.predicted * 1e3,
                median(one.measured) * 1e3);
    rows.push_back(JsonObject{
        {"measured_seconds", median(one.measured)}, {"name", one.name}, {"predicted_seconds", one.predicted}});
  }
  report.extra()["plans"] = rows;
  report.extra()["best"] = best->name;
  const auto [right, pairs] = count_ranked_pairs(candidates);
  std::printf("pairs that differ by 5 %%: %d, ranked as predicted: %d\n", pairs, right);
  report.extra()["pairs"] = pairs;
  report.extra()["pairs_ranked_rightly"] = right;
  const auto& least = *std::min_element(candidates.begin(), candidates.end(),
                                        [](const auto& a, const auto& b) { return a.predicted < b.predicted; });
  const double predicted = candidates.front().predicted;
  report.add({"choice against the least predicted", predicted, least.predicted, predicted / least.predicted, "s a step",
              "<= 1", predicted <= least.predicted});
  const double chosen = median(candidates.front().measured), fastest = median(best->measured);
  report.add({"plans measured", static_cast<double>(candidates.size()), static_cast<double>(most), 0, "plans", "all",
              candidates.size() == most});
  report.add({"choice against the best measured, " + devices, chosen, fastest, chosen / fastest, "s a step", "<= 1.05",
              chosen <= 1.05 * fastest});
  return report.finish();
}
