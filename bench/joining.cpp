// A node that comes for the first time while a run trains: when it is used, and what the run then takes (issue row l).
// Each node lives in namespaces of its own (network, and a disk for checkpoints), with two devices of 0.4 cores. A run
// of a small GPT begins on one node with `--nnodes 1:2`; the second node's `launch` starts once the first steps. Timed
// from that start to the end of the first step of the generation that has both; its steps are compared with what was
// predicted for them, its losses with those of the same seed on one node alone.
//   joining [--rounds N] [--seed S]        needs root
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "bench/support/node_namespaces.h"
#include "bench/support/open_run.h"
#include "bench/support/train_runs.h"
#include "bench/support/waits.h"
#include "common/clock.h"

using namespace coxswain;
using namespace coxswain::bench;

namespace {

constexpr const char* kDevices = "cpu@0.4,cpu@0.4";
constexpr int kNodes = 2, kStepsBefore = 40, kStepsAfter = 60, kComparedSteps = 20;
constexpr double kStartSeconds = 240, kUsedSeconds = 90;
constexpr double kMostSeconds = 10, kMostError = 0.15, kMostLossChange = 1e-5;

/// Both nodes of one run, each a `launch train`; the first one coordinates.
class TwoNodes {
 public:
  TwoNodes(const NodeNamespaces& apart, const std::filesystem::path& example)
      : apart_(apart), folder_(make_scratch_folder("joining")) {
    std::filesystem::create_directories(folder_ / "disk");
    for (int node = 0; node < kNodes; ++node) {
      std::filesystem::create_directories(own_disk(node));
      apart_.mount_disk(own_disk(node));
    }
    std::ofstream(folder_ / "job.yaml") << "name: joining\nmodel: {pt2: " << (example / "gpt.pt2").string()
                                        << "}\ndata: {text: " << (example / "kjv.txt").string()
                                        << ", sequence_length: 64, seed: 7}\nbatch: {global: 8}\ntrain: {steps: "
                                           "100000, seed: 1234, log_every: 50}\noptimizer: {name: adamw, "
                                           "learning_rate: 1.0e-4, warmup_steps: 100, clip_grad_norm: 1.0}\n"
                                           "checkpoint: {directory: "
                                        << (folder_ / "disk").string() << "}\n";
    std::ofstream(folder_ / "token") << "a token of this bench alone\n";
    std::filesystem::permissions(folder_ / "token", std::filesystem::perms::owner_read);
  }
  ~TwoNodes() {
    for (const auto& [node, launch] : launches_) {
      kill(launch, SIGKILL);  // everything beneath it ends with it
      static_cast<void>(wait_process(launch, 10));
    }
    for (int node = 0; node < kNodes; ++node) apart_.unmount_disk(own_disk(node));
  }
  TwoNodes(const TwoNodes&) = delete;
  TwoNodes& operator=(const TwoNodes&) = delete;

  void start(int node) {
    const std::string number = std::to_string(node);
    const auto temporary = folder_ / ("tmp" + number);
    std::filesystem::create_directories(temporary);
    std::vector<std::string> line = apart_.on(node, own_disk(node), folder_ / "disk");
    line.insert(line.end(), {"env", "TMPDIR=" + temporary.string(), (program_folder() / "launch").string(), "train",
                             (folder_ / "job.yaml").string(), "--devices", kDevices, "--run-dir",
                             (node == 0 ? run() : folder_ / ("node" + number)).string(), "--local-addr",
                             apart_.address(node), "--nnodes", "1:2", "--node-rank", number, "--rdzv-endpoint",
                             apart_.address(0) + ":29400", "--token-file", (folder_ / "token").string()});
    launches_[node] = start_process(line, folder_ / ("output" + number));
  }
  [[nodiscard]] std::filesystem::path run() const { return folder_ / "run"; }

  /// Until it holds of the rows so far. Exits 1 with the run's errors where it does not within `limit_seconds`.
  template <class Holds>
  std::vector<Json> wait_rows(double limit_seconds, const char* what, Holds holds) const {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(limit_seconds));
    for (;;) {
      std::vector<Json> rows = read_lines(run() / "metrics.jsonl");
      if (holds(rows)) return rows;
      if (deadline.passed(steady_clock())) fail(what);
      wait(kLookSeconds);
    }
  }
  /// SIGTERM to the first node; all end with the saved step's code.
  void stop() {
    kill(launches_.at(0), SIGTERM);
    for (const auto& [node, launch] : std::exchange(launches_, {}))
      if (const int code = wait_process(launch, 60); code != 75) fail("does not end with 75");
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    std::fprintf(stderr, "the run %s:\n", what);
    for (const char* file : {"output0.errors", "output1.errors"}) {
      std::stringstream text;
      text << std::ifstream(folder_ / file).rdbuf();
      std::fprintf(stderr, "%s", text.str().c_str());
    }
    for (const auto& [node, launch] : launches_) kill(launch, SIGKILL);
    std::exit(1);
  }

  [[nodiscard]] std::filesystem::path own_disk(int node) const { return folder_ / ("disk" + std::to_string(node)); }

  const NodeNamespaces& apart_;
  std::filesystem::path folder_;
  std::map<int, int> launches_;  // pid by node
};

struct Round {
  double used_seconds = 0, step_before = 0, step_after = 0, predicted_after = 0;
  std::map<std::int64_t, double> losses;
  std::int64_t first_step = 0;  // of the generation that has both
};

double median_step(const std::vector<Json>& rows, std::int64_t generation, std::size_t leave_out) {
  std::vector<double> seconds;
  for (const Json& row : rows)
    if (row["generation"] == Json(generation)) seconds.push_back(row["step_seconds"].number());
  seconds.erase(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(std::min(leave_out, seconds.size())));
  return seconds.empty() ? 0 : median(seconds);
}

Round run_round(const NodeNamespaces& apart, const std::filesystem::path& example) {
  constexpr std::size_t kWarmSteps = 5;
  TwoNodes nodes(apart, example);
  nodes.start(0);
  const auto of = [](const std::vector<Json>& rows, std::int64_t generation) {
    return std::count_if(rows.begin(), rows.end(),
                         [&](const Json& row) { return row["generation"] == Json(generation); });
  };
  nodes.wait_rows(kStartSeconds, "does not step", [](const auto& rows) { return rows.size() >= kStepsBefore; });
  const TimePoint began = steady_clock().now();
  nodes.start(1);
  nodes.wait_rows(kUsedSeconds, "does not use the second node", [&](const auto& rows) { return of(rows, 2) >= 1; });
  Round round;
  round.used_seconds = std::chrono::duration<double>(steady_clock().now() - began).count();
  const auto rows = nodes.wait_rows(kStartSeconds, "does not go on with both",
                                    [&](const auto& all) { return of(all, 2) >= kStepsAfter; });
  round.step_before = median_step(rows, 1, kWarmSteps);
  round.step_after = median_step(rows, 2, kWarmSteps);
  for (const Json& row : rows) {
    round.losses[row["step"].integer()] = row["loss"].number();
    if (row["generation"] != Json(2)) continue;
    round.predicted_after = row["predicted_step_seconds"].number();
    if (round.first_step == 0) round.first_step = row["step"].integer();
  }
  nodes.stop();
  return round;
}

/// The same job on one node alone.
std::map<std::int64_t, double> losses_alone(const NodeNamespaces& apart, const std::filesystem::path& example,
                                            std::int64_t last) {
  TwoNodes nodes(apart, example);
  nodes.start(0);
  const auto rows = nodes.wait_rows(kStartSeconds + static_cast<double>(last), "does not step",
                                    [last](const auto& all) { return static_cast<std::int64_t>(all.size()) >= last; });
  nodes.stop();
  std::map<std::int64_t, double> losses;
  for (const Json& row : rows) losses[row["step"].integer()] = row["loss"].number();
  return losses;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv, "a node that comes while a run trains", {"--rounds"});
  const int rounds = options.other.contains("--rounds") ? std::stoi(options.other.at("--rounds")) : 10;
  const NodeNamespaces apart(kNodes);
  const auto example = make_example({.layers = 8, .width = 256, .heads = 8, .context = 64, .dropout = 0.1});
  Report report("joining", options);
  std::vector<Round> all;
  std::int64_t last = 0;
  for (int i = 0; i < rounds; ++i) {
    const Round round = run_round(apart, example);
    std::printf("round %d: used after %.2f s, from step %lld; a step %.3f s before, %.3f s after, predicted %.3f s\n",
                i, round.used_seconds, static_cast<long long>(round.first_step), round.step_before, round.step_after,
                round.predicted_after);
    std::fflush(stdout);
    last = std::max(last, round.first_step + kComparedSteps);
    all.push_back(round);
  }
  const auto alone = losses_alone(apart, example, last);
  std::vector<double> used, errors, faster;
  double change = 0;
  for (const Round& round : all) {
    used.push_back(round.used_seconds);
    errors.push_back(std::fabs(round.predicted_after / round.step_after - 1));
    faster.push_back(round.step_before / round.step_after);
    for (std::int64_t step = round.first_step; step < round.first_step + kComparedSteps; ++step)
      if (round.losses.contains(step) && alone.contains(step))
        change = std::max(change, std::fabs(round.losses.at(step) / alone.at(step) - 1));
  }
  const double worst = *std::max_element(used.begin(), used.end());
  report.add({"used after, median", median(used), kMostSeconds, median(used) / kMostSeconds, "s", "<= 10",
              median(used) <= kMostSeconds});
  report.add({"used after, worst", worst, kMostSeconds, worst / kMostSeconds, "s", "<= 10", worst <= kMostSeconds});
  report.add({"step with both, median error of its prediction", median(errors), kMostError, median(errors) / kMostError,
              "fraction", "<= 0.15", median(errors) <= kMostError});
  report.add({"step before, over step after", median(faster), 1, median(faster), "ratio", "> 1", median(faster) > 1});
  report.add({"losses, largest change", change, kMostLossChange, change / kMostLossChange, "fraction", "<= 1e-5",
              change <= kMostLossChange});
  return report.finish();
}
