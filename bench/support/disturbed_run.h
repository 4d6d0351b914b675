#pragma once
// One whole run under faults, from its start to what it leaves behind, beside the same run undisturbed. Called by chaos
// and soak. Threads: one.
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "bench/support/disturber.h"

namespace coxswain::bench {

struct DisturbedRun {
  Disturbance faults;
  int num_faults = 0, exit_code = 0;
  bool same = false;       // losses: to the bit, where nodes were lost or planned anew within 1e-5 for 20 steps
  double far = 0;          // the largest relative difference in those 20 steps
  bool same_plan = false;  // the run had the undisturbed one's plan from end to end
  std::size_t rows = 0, steps = 0;
  std::string plans;
  std::map<std::string, double> goodput;  // seconds by class
  double first_start_seconds = 0;         // of them, to the run's first start
  int left = 0;                           // processes, listening ports, segments, temporary files, mounts
  std::vector<std::string> leaks;         // the same in words
};

/// Until the run ends; at most `most_faults` of them, then it goes to its end undisturbed.
[[nodiscard]] DisturbedRun disturb_run(const RunSettings& settings, const FaultPlan& plan, std::vector<FaultKind>& deck,
                                       std::mt19937_64& random, const Steps& expected, int most_faults);

/// The same run undisturbed, in `folder`, which exists. Exits 1 with its errors when it fails.
[[nodiscard]] Steps run_undisturbed(const RunSettings& settings, const std::filesystem::path& folder);

}  // namespace coxswain::bench
