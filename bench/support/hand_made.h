#pragma once
// Plans made by hand, where a bench must know what runs on both sides, and the one measurement of the machine that they
// are predicted by. Called by bench programs that pair `launch train` with a peer or with another plan. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support/train_runs.h"
#include "cluster/resource_graph.h"
#include "model/model_graph.h"
#include "plan/program.h"

namespace coxswain::bench {

/// What differs between plans of one model on one cluster; devices are taken in order.
struct HandMade {
  std::vector<int> ends;              // end block of every stage; the last is the model's
  std::vector<std::int64_t> samples;  // of every replica of a stage, of one micro-batch
  int tensor = 1;                     // devices of a replica
  int zero_stage = 0;
  std::int64_t count = 1;  // micro-batches
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
};

/// A model on measured devices: cluster.json and profile.json in a folder, where plans are written too, so that no run
/// of them measures anew (two profiles of a shared machine differ by more than plans do).
struct Bench {
  std::filesystem::path folder;
  model::ModelGraph graph;
  cluster::ResourceGraph cluster;
};
/// `launch probe` for `job` on `devices`. Exits 1 with what the program said when it fails.
[[nodiscard]] Bench measure_bench(const TrainJob& job, const std::string& devices);
/// The same of a run directory, which has both files.
[[nodiscard]] Bench bench_of_run(const TrainJob& job, const std::filesystem::path& run_dir);

/// Requires: as many devices as the stages need.
[[nodiscard]] plan::Plan make_plan(const Bench& bench, const HandMade& wanted);
/// Why the worker cannot run `plan`; empty: it can.
[[nodiscard]] std::string refusal_of(const Bench& bench, const plan::Plan& plan);
/// Writes NAME.json beside cluster.json. Returns its path.
[[nodiscard]] std::filesystem::path write_plan(const Bench& bench, const plan::Plan& plan, const std::string& name);

/// Largest over ranks; 0 where there are none.
[[nodiscard]] double largest(const std::vector<double>& values);

}  // namespace coxswain::bench
