#pragma once
// Bounds that order the outer loop: no plan of a combination steps faster. Called by make_combinations. Threads: pure.
// Source: docs/cost_model.md, C23, C24, C27.
#include <span>
#include <utility>

#include "planner/search.h"

namespace coxswain::planner {

/// C24, for stages of equal units of one kind each. With every t_s the time of a micro-batch on the busiest
/// replica of stage s, and k t_s at most that on the least busy one: the first micro-batch reaches stage s after the
/// forward passes before it and its gradient goes back the same way, so m t_s <= T - k (t_0 + ... + t_(s-1)); over all
/// stages k sum(t) <= T (1 - (1 - k/m)^S).
[[nodiscard]] Cost fill_bound(const SearchSpace& space, const Combination& one);

/// C27: C24 for stages of one pool each. The fastest stages first, each after the other. Zero where a stage may stand
/// on several pools.
[[nodiscard]] Cost ramp_bound(const SearchSpace& space, const Combination& one);

/// C27 where stages may hold several chunks, as many blocks in each, at most kMaxChunks: only the first chunk of a
/// stage is passed before the next one begins. Zero where blocks in the middle of the model differ.
[[nodiscard]] Cost chunked_ramp_bound(const SearchSpace& space, const Combination& one);

/// [first, end) of the longest run of blocks that cost the same. Empty: blocks cost what each costs.
[[nodiscard]] std::pair<int, int> longest_run(const SpanCosts& spans);

/// Sets `work`, `work_bound` and `bound` of each: C23 on the units that it can use; C24 and C27 too on many devices.
/// Requires: all of one family.
void set_bounds(const SearchSpace& space, std::span<Combination> combinations);

/// C23 for the whole space: no plan on its devices steps faster, whatever its stages stand on.
[[nodiscard]] Cost work_of_space(const SearchSpace& space);

}  // namespace coxswain::planner
