#pragma once
// Bounds that order the outer loop: no plan of a combination steps faster. Called by make_combinations. Threads: pure.
// Source: docs/cost_model.md, C23, C24, C27.
#include <span>
#include <utility>
#include <vector>

#include "planner/search.h"

namespace coxswain::planner {

/// Stages on one pool.
struct PoolStages {
  std::size_t pool = 0;
  std::int32_t devices = 0;  // of a stage
  std::int64_t stages = 0;
};

/// Bounds of the combinations of one family and micro-batch: what they share is looked at once.
class FamilyBounds {
 public:
  /// `one`: any of them. `run`: longest_run.
  FamilyBounds(const SearchSpace& space, const Combination& one, std::pair<int, int> run);

  /// C24, for stages of equal units of one kind each. With every t_s the time of a micro-batch on the busiest replica
  /// of stage s, and k t_s at most that on the least busy one: the first micro-batch reaches stage s after the forward
  /// passes before it and its gradient goes back the same way, so m t_s <= T - k (t_0 + ... + t_(s-1)); over all stages
  /// k sum(t) <= T (1 - (1 - k/m)^S). Requires: one pool.
  [[nodiscard]] Cost fill(const Combination& one) const;
  /// C27: C24 for stages of one pool each. The fastest stages first, each after the other. Zero where a stage may stand
  /// on several pools. Requires: `one.work`.
  [[nodiscard]] Cost ramp(const Combination& one) const;
  /// C27 where stages may hold several chunks, as many blocks in each, at most kMaxChunks: only the first chunk of a
  /// stage is passed before the next one begins. Zero where blocks in the middle of the model differ. Requires:
  /// `one.work`.
  [[nodiscard]] Cost chunked_ramp(const Combination& one) const;

 private:
  /// C24 and C27: what of its forward and backward a stage cannot overlap with those before it.
  [[nodiscard]] double unhidden(plan::ScheduleKind schedule) const;

  const SearchSpace& space_;
  double unhidden_ = 1;  // where the backward is split
  std::vector<PoolStages> kinds_;
  double even_ = 1;  // C24's k
  bool begins_evenly_ = false;
};

/// [first, end) of the longest run of blocks that cost the same. Empty: blocks cost what each costs.
[[nodiscard]] std::pair<int, int> longest_run(const SpanCosts& spans);

/// Sets `work`, `work_bound` and `bound` of each: C23 on the units that it can use; C24 and C27 too on many devices.
/// Requires: all of one family.
void set_bounds(const SearchSpace& space, std::span<Combination> combinations);

/// C23 for the whole space: no plan on its devices steps faster, whatever its stages stand on.
[[nodiscard]] Cost work_of_space(const SearchSpace& space);

}  // namespace coxswain::planner
