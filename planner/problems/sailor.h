#pragma once
// Sailor's contest: one pipeline with data-parallel replicas on GPUs of several types in several zones, for the most
// iterations a second or the fewest dollars an iteration. A stage may mix types, tensor-parallel degrees and zones.
// The peer's cost function: sailor_model.h; the search over stages: sailor_stages.h; the outer loop: sailor_search.h;
// zones and the order of the replicas: sailor_zones.h.
// Called by the list of families. Threads: pure. Source: Strati et al., "Sailor: automating distributed training over
// dynamic, heterogeneous, and geo-distributed clusters", SOSP 2025.
#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "planner/problems/contest.h"

namespace coxswain::planner {

struct SailorGpu {
  std::string name;
  double memory_bytes = 0;
  double usd_per_hour = 0;
};

/// GPUs of one type in one zone; both are places in the instance's lists.
struct SailorPool {
  int gpu = 0, zone = 0, count = 0;
};

/// One layer at one tensor-parallel degree, for one sample.
struct SailorLayer {
  double parameters = 0;  // of one shard
  double output_numbers = 0, activation_numbers = 0;
};

/// One layer, one micro-batch.
struct SailorTimes {
  double compute_seconds = 0;  // forward and backward
  double update_seconds = 0;
};

struct SailorProfile {
  int gpu = 0, micro_batch = 1, tp = 1;
  friend auto operator<=>(const SailorProfile&, const SailorProfile&) = default;
};

/// `gpus` is how many take part on that side.
struct SailorEnd {
  int zone = 0, gpu = 0, gpus = 1;
  friend auto operator<=>(const SailorEnd&, const SailorEnd&) = default;
};

/// 10^9 bytes a second: c2 x^2 + c1 x + c0, x = log2(bytes / 10^6).
struct SailorCurve {
  double c2 = 0, c1 = 0, c0 = 0;
};

struct SailorInstance {
  int num_layers = 1;
  std::int64_t global_batch = 1;
  std::vector<SailorGpu> gpus;
  std::vector<std::string> zones;
  std::vector<SailorPool> pools;
  std::map<int, std::vector<std::optional<SailorLayer>>> layers;              // by tp; 1 is complete
  std::map<SailorProfile, std::vector<std::optional<SailorTimes>>> profiles;  // per layer
  std::map<std::pair<SailorEnd, SailorEnd>, SailorCurve> links;               // from, to
  std::map<std::pair<int, int>, double> usd_per_gb;                           // from zone, to zone
  bool minimise_cost = false;                                                 // else: maximise throughput
  std::optional<double> max_usd_per_iteration, min_iterations_per_second;
};

/// The five tables of an instance as text, comma-separated with a line of column names.
struct SailorTexts {
  std::string layers, times, network, egress, gpus;
};

/// Rows of GPUs and zones that the cluster does not name are left out. Errors: InvalidArgument, every problem listed.
[[nodiscard]] Result<SailorInstance> parse_sailor(const Json& json, const SailorTexts& texts);
/// The same with the texts read from the paths in `json`, which are relative to the folder of `file`.
[[nodiscard]] Result<SailorInstance> parse_sailor(const Json& json, const std::filesystem::path& file);

/// Equal replicas in a row. A replica is one tensor-parallel group.
struct SailorReplicas {
  int pool = 0, tp = 1, count = 1;
  friend bool operator==(const SailorReplicas&, const SailorReplicas&) = default;
};

struct SailorStage {
  int first = 0, end = 0;                // layers [first, end)
  std::vector<SailorReplicas> replicas;  // in ring order; the j-th talks to the j-th of the next stage
  friend bool operator==(const SailorStage&, const SailorStage&) = default;
};

struct SailorPlan {
  int micro_batch = 1;
  std::vector<SailorStage> stages;
  friend bool operator==(const SailorPlan&, const SailorPlan&) = default;
};

/// The best plan found. Errors: ResourceExhausted when none is valid.
[[nodiscard]] Result<ContestAnswer> solve_sailor(const SailorInstance& instance, const ContestOptions& options);

/// An instance, or the arguments of Sailor's own planner (sailor_file.h).
[[nodiscard]] Result<ContestSolver> load_sailor(const Json& json, const std::filesystem::path& file);

}  // namespace coxswain::planner
