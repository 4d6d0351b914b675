// Unequal devices (`cpu@1.0,cpu@0.4`): the found plan against the best even plan, both measured in this run,
// interleaved. Actions last 50 ms or longer, so that a cgroup's period of 4 or 10 ms averages out. Issue row g.
#include <cstdio>

#include "bench/support/train_runs.h"

using namespace coxswain;
using namespace coxswain::bench;

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "found plan against the best even plan on unequal devices", {"--devices", "--pairs"});
  const std::string devices = options.other.contains("--devices") ? options.other.at("--devices") : "cpu@1.0,cpu@0.4";
  const int pairs = options.other.contains("--pairs") ? std::stoi(options.other.at("--pairs")) : options.quick ? 1 : 3;
  Report report("unequal_devices", options);
  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  // The even plans: equal samples, or an even cut with the micro-batch counts a person would try.
  const std::vector<std::pair<std::string, std::string>> even{
      {"dp2 even", "{data: 2, pipeline: 1, samples: [16, 16], micro: 32}"},
      {"pp2 even, micro 4", "{pipeline: 2, data: 1, cuts: even, micro: 4}"},
      {"pp2 even, micro 8", "{pipeline: 2, data: 1, cuts: even, micro: 8}"}};
  std::vector<double> found;
  std::vector<std::vector<double>> others(even.size());
  const auto measure = [&](const std::string& name, const std::string& plan) {
    const TrainRun run = run_train(
        {.example = example, .context = 128, .global_batch = 32, .steps = options.quick ? 8 : 14, .plan = plan},
        {"--devices", devices}, 600);
    if (!run.ok) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), run.failure.c_str());
      std::exit(1);
    }
    std::printf("%-20s predicted %8.1f ms  measured %8.1f ms\n", name.c_str(), run.predicted_step * 1e3,
                run.measured_step * 1e3);
    std::fflush(stdout);
    return run.measured_step;
  };
  for (int pair = 0; pair < pairs; ++pair) {
    found.push_back(measure("found", ""));
    for (std::size_t i = 0; i < even.size(); ++i) others[i].push_back(measure(even[i].first, even[i].second));
  }
  double best = median(others[0]);
  for (const auto& times : others) best = std::min(best, median(times));
  const double ratio = best / median(found);
  report.add(
      {"found against best even plan, " + devices, median(found), best, ratio, "s a step", ">= 1.25", ratio >= 1.25});
  return report.finish();
}
