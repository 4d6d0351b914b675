#pragma once
// Plans run by `launch train` with real processes, all under one measurement of the machine: the cluster that plans
// name by its hash, the profile that predictions come from. Called by parity and plan_accuracy. Threads: one.
#include <filesystem>
#include <string>
#include <vector>

#include "bench/support/train_runs.h"
#include "cluster/profile.h"
#include "cluster/resource_graph.h"
#include "plan/plan.h"

namespace coxswain::bench {

class LaunchedPlans {
 public:
  /// Runs `launch probe --job`. Exits 1 with what it said when it fails. `folder`: where the measurement stays; one of
  /// an earlier run there is taken as it is. Empty: a scratch folder.
  LaunchedPlans(const TrainJob& job, std::string devices, std::filesystem::path folder = {});
  [[nodiscard]] const cluster::ResourceGraph& cluster() const { return cluster_; }
  [[nodiscard]] const cluster::Profile& profile() const { return profile_; }
  /// The plan has the job's batch and precision, the job is that of the probe but for the precision. `flags`: further
  /// ones of `launch train`.
  [[nodiscard]] TrainRun run(const TrainJob& job, const plan::Plan& plan, std::vector<std::string> flags,
                             double limit_seconds) const;

 private:
  std::string devices_;
  std::filesystem::path folder_;  // cluster.json, profile.json, beside them the plan at work
  cluster::ResourceGraph cluster_;
  cluster::Profile profile_;
};

}  // namespace coxswain::bench
