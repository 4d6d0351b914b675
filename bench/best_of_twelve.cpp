// One real machine: twelve feasible plans for the demo model on unequal CPU devices, all trained in this run,
// interleaved. The planner's choice, its runners-up, and plans that a person would try. Issue row j.
#include <algorithm>
#include <cstdio>
#include <optional>
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

class PlanList {
 public:
  PlanList(std::filesystem::path programs, std::filesystem::path job, const TrainRun& first, std::size_t most)
      : programs_(std::move(programs)), job_(std::move(job)), first_(first), most_(most) {
    folder_ = make_scratch_folder("plans");
  }

  /// The choice and its runners-up.
  void add_found() {
    const auto result = plan({"--top", "5"});
    if (!result) {
      std::fprintf(stderr, "launch plan failed\n");
      std::exit(1);
    }
    add("chosen: " + (*result)["summary"].string(), (*result)["plan"]);
    for (const Json& runner : (*result)["runners_up"].array())
      add("runner-up: " + runner["summary"].string(), runner["plan"]);
  }

  void add_by_hand() {
    for (const auto& constraints : by_hand()) {
      if (candidates_.size() >= most_) return;
      std::vector<std::string> flags{"--top", "0"};
      for (const std::string& constraint : constraints) flags.insert(flags.end(), {"--constrain", constraint});
      const auto result = plan(flags);
      if (result) add("by hand: " + (*result)["summary"].string(), (*result)["plan"]);
    }
  }

  [[nodiscard]] std::vector<Candidate>& candidates() { return candidates_; }

 private:
  /// The JSON of `launch plan` on the cluster and profile of the first run; nothing where there is no such plan.
  [[nodiscard]] std::optional<Json> plan(const std::vector<std::string>& flags) const {
    std::vector<std::string> arguments{(programs_ / "launch").string(),
                                       "plan",
                                       job_.string(),
                                       "--runnable",
                                       "--format",
                                       "json",
                                       "--cluster",
                                       (first_.run_dir / "cluster.json").string(),
                                       "--profile",
                                       (first_.run_dir / "profile.json").string()};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const auto result = run_process(arguments, 120);
    if (result.exit_code != 0) {
      std::fprintf(stderr, "no plan (%d): %s\n", result.exit_code, result.errors.c_str());
      return std::nullopt;
    }
    auto json = parse_json(result.output);
    if (!json) return std::nullopt;
    return std::move(*json);
  }

  void add(const std::string& name, const Json& plan) {
    if (candidates_.size() >= most_ || !seen_.insert(to_text(plan)).second) return;
    const auto file = folder_ / ("plan-" + std::to_string(candidates_.size()) + ".json");
    const auto written = write_file(file.string(), to_text(Json(JsonObject{{"plan", plan}}), 2) + "\n");
    if (!written) std::fputs(to_text(written.error()).c_str(), stderr);
    candidates_.push_back({name, file, 0, {}});
  }

  std::filesystem::path programs_, job_, folder_;
  const TrainRun& first_;
  std::size_t most_;
  std::set<std::string> seen_;
  std::vector<Candidate> candidates_;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "the planner's choice among twelve plans, all measured",
                                        {"--devices", "--rounds", "--plans", "--steps", "--programs"});
  const auto option = [&](const char* name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const std::string devices = option("--devices", "cpu@1.0,cpu@0.4");
  const int rounds = std::stoi(option("--rounds", options.quick ? "1" : "3"));
  const int steps = std::stoi(option("--steps", options.quick ? "8" : "14"));
  const auto most = static_cast<std::size_t>(std::stoi(option("--plans", "12")));
  const std::filesystem::path programs = option("--programs", program_folder().string());
  Report report("best_of_twelve", options);

  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  TrainJob job{
      .example = example, .context = 128, .global_batch = 32, .steps = steps, .plan = "", .programs = programs};
  const TrainRun first = run_train(job, {"--devices", devices}, 600);
  if (!first.ok) {
    std::fprintf(stderr, "first run: %s\n", first.failure.c_str());
    return 1;
  }
  PlanList list(programs, write_job(job, make_scratch_folder("job")), first, most);
  list.add_found();
  list.add_by_hand();
  std::vector<Candidate>& candidates = list.candidates();
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      // Every round from another start, so that no plan always follows the same one.
      Candidate& one = candidates[(i + static_cast<std::size_t>(round) * 5) % candidates.size()];
      const TrainRun run = run_train(job, {"--devices", devices, "--plan", one.file.string()}, 600);
      if (!run.ok) {
        std::fprintf(stderr, "%s: %s\n", one.name.c_str(), run.failure.c_str());
        return 1;
      }
      one.predicted = run.predicted_step;
      one.measured.push_back(run.measured_step);
      std::printf("round %d  %-70s predicted %8.1f ms  measured %8.1f ms\n", round + 1, one.name.c_str(),
                  run.predicted_step * 1e3, run.measured_step * 1e3);
      std::fflush(stdout);
    }
  }

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
  const double chosen = median(candidates.front().measured), fastest = median(best->measured);
  report.add({"plans measured", static_cast<double>(candidates.size()), static_cast<double>(most), 0, "plans", "all",
              candidates.size() == most});
  report.add({"choice against the best measured, " + devices, chosen, fastest, chosen / fastest, "s a step", "<= 1.05",
              chosen <= 1.05 * fastest});
  return report.finish();
}
