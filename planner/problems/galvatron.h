#pragma once
// Galvatron-2's contest: per layer a tensor or Ulysses sequence degree, a data degree, ZeRO 2 or 3 and recompute; the
// same for embedding and head; pipeline degree, chunks (micro-batches) and layers per stage, under the peer's cost and
// memory formulas with every change of degree between layers charged. Plans go best bound first; each stage's layers
// are one label search (galvatron_stage.h). The peer's pipeline formula looks at the end stages only, so that a plan
// with slow inner stages looks fast: cuts other than the peer's even one are charged for their slowest stage instead.
// "Chunk", "degree" and "MB" (2^20 bytes) are the peer's words. Called by the list of families. Threads: pure.
// Source: Liu et al., "Galvatron-2", 2025; formulas 1 to 16 of the contest.
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "planner/problems/contest.h"

namespace coxswain::planner {

struct GalvatronLine {
  double slope = 0, intercept = 0;
};

struct GalvatronMessages {
  std::map<std::string, double> points;  // ms by MB as "%g" prints it
  GalvatronLine line;                    // elsewhere
};

/// By degree.
struct GalvatronEnd {
  std::map<int, double> model_states_mb, activation_mb_per_sample;
};

struct GalvatronInstance {
  int gpus = 1, layers = 1, max_degree = 1;
  std::int64_t memory_mb = 0, sequence = 1, hidden = 1, global_batch = 1;
  std::optional<std::int64_t> chunks;  // none: free
  double layer_parameter_mb = 0;
  GalvatronLine layer_forward_ms, end_forward_ms;  // by samples
  std::map<int, double> layer_activation_mb;       // by degree
  std::optional<double> checkpoint_activation_mb;
  GalvatronEnd whole, first, last;
  std::map<std::string, double> all_reduce_ms_per_mb;
  std::map<int, double> p2p_ms_per_mb;  // by pp
  double overlap_slowdown = 1;
  std::map<int, GalvatronMessages> all_gather, all_to_all;  // by degree
};

struct GalvatronStrategy {
  int tp = 1, sp = 1, dp = 1, zero = 0;
  bool recompute = false;
  friend auto operator<=>(const GalvatronStrategy&, const GalvatronStrategy&) = default;
};

struct GalvatronPlan {
  int pp = 1;
  std::int64_t chunks = 1;
  std::vector<int> split;  // layers per stage
  std::vector<GalvatronStrategy> layers;
  GalvatronStrategy embedding;
};

[[nodiscard]] Result<GalvatronInstance> parse_galvatron(const Json& json, const std::filesystem::path& file);

/// Errors: ResourceExhausted when no plan fits.
[[nodiscard]] Result<ContestAnswer> solve_galvatron(const GalvatronInstance& instance, const ContestOptions& options);

/// An instance, or the arguments of Galvatron's own search (galvatron_file.h).
[[nodiscard]] Result<ContestSolver> load_galvatron(const Json& json, const std::filesystem::path& file);

}  // namespace coxswain::planner
