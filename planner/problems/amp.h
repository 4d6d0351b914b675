#pragma once
// AMP's contest: one (tp, dp, pp, micro-batch) for the whole model and an uneven cut of a layer chain into pp stages,
// on nodes of unlike bandwidth. Every shape gets its best cut (amp_split.h), under the peer's cost function or, for the
// measured row, under our own analytic one (amp_model.h). The answer ranks all shapes. "Unit" is the peer's word for
// what the chain is made of; "number" is a 32-bit float, the peer's unit of volume.
// Called by the list of families. Threads: pure. Source: Li et al., "AMP: automatically finding model parallel
// strategies with heterogeneity awareness", NeurIPS 2022.
#include <cstdint>
#include <filesystem>
#include <map>
#include <vector>

#include "planner/problems/contest.h"

namespace coxswain::planner {

struct AmpNode {
  int gpus = 1;
  double inter_numbers_per_second = 0;  // to other nodes
  double intra_numbers_per_second = 0;
};

struct AmpUnit {
  double parameters = 0;
  bool embedding = false;  // the units marked so share one tensor
  double output_numbers_per_sample = 0;
  bool output_divided_by_tp = false;
};

struct AmpInstance {
  std::vector<AmpNode> nodes;
  std::vector<AmpUnit> units;
  std::map<int, std::vector<double>> forward_seconds;  // by tp: per unit, for one sample
  std::int64_t global_batch = 1;
};

struct AmpShape {
  int tp = 1, dp = 1, pp = 1;
  std::int64_t micro_batch = 1;
  friend auto operator<=>(const AmpShape&, const AmpShape&) = default;
};

struct AmpPlan {
  AmpShape shape;
  std::vector<int> split;  // units per stage
};

/// Reads neither measured times nor anything else that is not named above.
[[nodiscard]] Result<AmpInstance> parse_amp(const Json& json, const std::filesystem::path& file);

[[nodiscard]] int num_gpus(const AmpInstance& instance);
/// tp has a profile, tp x dp x pp = GPUs, dp x micro-batch divides the global batch; ascending.
[[nodiscard]] std::vector<AmpShape> list_shapes(const AmpInstance& instance);
/// The contest's formulas 1 to 8. Requires: a valid plan.
[[nodiscard]] double estimate_amp_seconds(const AmpInstance& instance, const AmpPlan& plan);

/// All shapes, each with its best cut, best first; equal ones in the order of list_shapes.
/// Errors: ResourceExhausted when there is no valid shape.
[[nodiscard]] Result<ContestAnswer> solve_amp(const AmpInstance& instance, const ContestOptions& options);

[[nodiscard]] Result<ContestSolver> load_amp(const Json& json, const std::filesystem::path& file);

}  // namespace coxswain::planner
