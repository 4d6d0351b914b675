// Predicted beside measured: step time and peak memory of the planner's choice and of three forced plans on `2xcpu`.
// Issue rows c and d: each run probes anew; the runs are interleaved, medians over the repetitions.
#include <cmath>
#include <cstdio>

#include "bench/support/train_runs.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

struct Case {
  std::string name, plan;
  std::vector<double> predicted, measured, error, memory_error;
};

}  // namespace

int main(int argc, char** argv) {
  const Options options =
      parse_options(argc, argv, "predicted beside measured step time and memory on 2xcpu", {"--pairs", "--devices"});
  const int pairs = options.other.contains("--pairs") ? std::stoi(options.other.at("--pairs")) : options.quick ? 1 : 5;
  const std::string devices = options.other.contains("--devices") ? options.other.at("--devices") : "2xcpu";
  Report report("prediction", options);
  const auto example = make_example({});
  std::vector<Case> cases{{"chosen", "", {}, {}, {}, {}},
                          {"dp2", "{data: 2, pipeline: 1}", {}, {}, {}, {}},
                          {"pp2 even", "{pipeline: 2, data: 1, cuts: even}", {}, {}, {}, {}},
                          {"pp2 uneven", "{pipeline: 2, data: 1, cuts: [2]}", {}, {}, {}, {}}};
  for (int pair = 0; pair < pairs; ++pair)
    for (auto& c : cases) {
      const TrainRun run =
          run_train({.example = example, .context = 128, .global_batch = 32, .steps = 20, .plan = c.plan},
                    {"--devices", devices}, 400);
      if (!run.ok) {
        std::fprintf(stderr, "%s: %s\n", c.name.c_str(), run.failure.c_str());
        return 1;
      }
      c.predicted.push_back(run.predicted_step);
      c.measured.push_back(run.measured_step);
      c.error.push_back(std::fabs(run.predicted_step / run.measured_step - 1));
      double worst = 0;
      for (std::size_t r = 0; r < run.measured_peak.size(); ++r)
        worst = std::max(worst, std::fabs(run.predicted_peak.at(r) / run.measured_peak[r] - 1));
      c.memory_error.push_back(worst);
      std::printf("%-10s pair %d: predicted %7.1f ms  measured %7.1f ms  memory error %.1f %%\n", c.name.c_str(),
                  pair + 1, run.predicted_step * 1e3, run.measured_step * 1e3, worst * 100);
      std::fflush(stdout);
    }
  for (const auto& c : cases) {
    report.add({"step time, " + c.name + " (ours = median error)", median(c.error), median(c.measured),
                median(c.predicted) / median(c.measured), "predicted/meas", "error <= 0.15", median(c.error) <= 0.15});
    report.add({"peak memory, " + c.name + " (ours = median error)", median(c.memory_error), 0, 0, "fraction",
                "error <= 0.15", median(c.memory_error) <= 0.15});
  }
  for (std::size_t a = 0; a < cases.size(); ++a)
    for (std::size_t b = a + 1; b < cases.size(); ++b) {
      const double measured = median(cases[a].measured) / median(cases[b].measured);
      if (std::fabs(measured - 1) <= 0.05) continue;
      const double predicted = median(cases[a].predicted) / median(cases[b].predicted);
      report.add({"rank, " + cases[a].name + " against " + cases[b].name, predicted, measured, predicted / measured,
                  "time ratio", "same side of 1", (predicted > 1) == (measured > 1)});
    }
  return report.finish();
}
