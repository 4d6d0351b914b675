#pragma once
// Runs of `launch train` for benches: one model and text, many plans and devices; what was predicted and what was
// measured.
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support/bench.h"

namespace coxswain::bench {

/// Sizes of examples/gpt; exported once per bench.
struct ModelSize {
  int layers = 4, width = 256, heads = 8, context = 128;
  double dropout = 0.1;
};
/// Writes gpt.pt2 and kjv.txt into a scratch folder and returns it. Exits 1 with the exporter's message when it fails.
[[nodiscard]] std::filesystem::path make_example(const ModelSize& size);

/// Five families of transformers and their data, by tests/model/make_models.py, in a scratch folder.
/// `size`: nothing, or width and length. Exits 1 as make_example.
[[nodiscard]] std::vector<std::filesystem::path> make_family_models(const std::vector<std::string>& size);

/// Bytes below 32 with some order in them: every model with that many tokens can learn it.
void write_text(const std::filesystem::path& path, std::uint64_t seed);

struct TrainJob {
  std::filesystem::path example;  // from make_example
  int context = 128;
  int global_batch = 32;
  int steps = 20;
  std::string plan;                     // constraints as YAML flow map, or a plan file; empty: auto
  std::filesystem::path programs = {};  // folder of launch and worker; empty: this program's
  int first_measured_step = 5;          // steps before it warm up
  /// In place of the example's: a model with a text or a file of tensors.
  std::filesystem::path model = {}, text = {}, tensors = {};
  int warmup = 20;
  std::string precision = "float32";
  std::filesystem::path cluster = {};  // file; empty: measured
};

struct TrainRun {
  bool ok = false;
  std::string failure;  // last lines of stderr
  std::filesystem::path run_dir;
  double predicted_step = 0, measured_step = 0;       // median from the first measured step on
  std::vector<double> predicted_peak, measured_peak;  // bytes, by rank
  std::vector<double> resident;                       // peak of the process, by rank
  std::vector<double> losses, grad_norms;             // by step
};

/// Writes job.yaml into `folder`. Returns its path.
[[nodiscard]] std::filesystem::path write_job(const TrainJob& job, const std::filesystem::path& folder);
/// One whole `launch train`: probe, profile, plan, run; with `--plan FILE` and its cluster.json and profile.json beside
/// it only the run.
[[nodiscard]] TrainRun run_train(const TrainJob& job, const std::vector<std::string>& flags, double limit_seconds);
[[nodiscard]] TrainRun read_run(const std::filesystem::path& run_dir, int first_measured_step = 5);

}  // namespace coxswain::bench
