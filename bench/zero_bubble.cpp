// Zero-bubble H1 beside 1F1B: four stages, each held to 0.4 core, eight micro-batches, one model, one cut. The measured
// step must be shorter by at least half of what the simulator predicts from a profile of this machine, at equal memory.
// Issue row e.
//
// Both plans are made by hand and run by `launch train` under the same cgroup quotas, in turns; who begins alternates.
// Actions last longer than 50 ms, so that a quota's period of 10 ms averages out. H1 delays W and fills the bubbles
// with it; what it may hold at once is what 1F1B's first stage holds, so the fullest rank decides what is equal: its
// peak of bytes in tensors under H1 beside that under 1F1B.
#include <cstdio>

#include "bench/support/hand_made.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

struct Schedule {
  const char* name;
  plan::ScheduleKind kind;
  std::filesystem::path file = {};
  double predicted = 0, peak = 0;
  std::vector<double> peaks = {};  // by rank
  std::vector<double> measured = {};
};

void measure(Schedule& schedule, const TrainJob& job, const std::string& devices) {
  const TrainRun run = run_train(job, {"--devices", devices, "--plan", schedule.file.string()}, 600);
  if (!run.ok) {
    std::fprintf(stderr, "zero_bubble: %s: %s\n", schedule.name, run.failure.c_str());
    std::exit(1);
  }
  schedule.predicted = run.predicted_step;
  schedule.peak = largest(run.measured_peak);
  schedule.peaks = run.measured_peak;
  schedule.measured.push_back(run.measured_step);
  std::printf("    %-5s predicted %8.1f ms  measured %8.1f ms  peak of the fullest rank %.1f MiB\n", schedule.name,
              run.predicted_step * 1e3, run.measured_step * 1e3, schedule.peak / (1 << 20));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "zero-bubble H1 beside 1F1B, four stages at 0.4 core",
                                        {"--devices", "--pairs", "--steps"});
  const auto option = [&](const char* name, const std::string& otherwise) {
    return options.other.contains(name) ? options.other.at(name) : otherwise;
  };
  const std::string devices = option("--devices", "4xcpu@0.4");
  const int pairs = std::stoi(option("--pairs", options.quick ? "1" : "5"));
  const int steps = std::stoi(option("--steps", options.quick ? "6" : "10"));
  Report report("zero_bubble", options);
  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 128, .dropout = 0.1});
  const TrainJob job{
      .example = example, .context = 128, .global_batch = 32, .steps = steps, .plan = "", .first_measured_step = 3};
  const Bench bench = measure_bench(job, devices);
  Schedule plain{"1f1b", plan::ScheduleKind::OneForwardOneBackward};
  Schedule zero_bubble{"zbh1", plan::ScheduleKind::ZeroBubbleH1};
  for (Schedule* schedule : {&plain, &zero_bubble}) {
    // Two layers a stage; prologue and epilogue at the ends.
    schedule->file = write_plan(
        bench, make_plan(bench, {.ends = {3, 5, 7, 10}, .samples = {4}, .count = 8, .schedule = schedule->kind}),
        schedule->name);
  }
  std::vector<double> gains;
  for (int pair = 0; pair < pairs; ++pair) {
    for (const int turn : {pair, pair + 1}) measure(turn % 2 == 0 ? plain : zero_bubble, job, devices);
    gains.push_back(plain.measured.back() - zero_bubble.measured.back());
  }
  const double predicted = plain.predicted - zero_bubble.predicted, share = median(gains) / predicted;
  report.add({"step, 1F1B beside H1", median(zero_bubble.measured), median(plain.measured),
              median(plain.measured) / median(zero_bubble.measured), "s a step", "shorter",
              median(zero_bubble.measured) < median(plain.measured)});
  report.add({"shorter by, beside what was predicted", median(gains), predicted, share, "s a step", ">= 0.5",
              predicted > 0 && share >= 0.5});
  constexpr double kMebibyte = 1 << 20;
  report.add({"peak memory of the fullest rank", zero_bubble.peak / kMebibyte, plain.peak / kMebibyte,
              zero_bubble.peak / plain.peak, "MiB", "<= 1.0", zero_bubble.peak <= plain.peak});
  for (const Schedule* schedule : {&plain, &zero_bubble}) {
    JsonArray peaks;
    for (const double peak : schedule->peaks) peaks.push_back(peak);
    report.extra()[std::string(schedule->name) + " peak_memory_bytes"] = peaks;
  }
  return report.finish();
}
