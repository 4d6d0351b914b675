#pragma once
// The best plan under Galvatron-2's formulas: every pp, chunk count, embedding strategy, bound on degrees and cut, best
// bound first; each stage by galvatron_stage.h, the stages of a cut joined by a second label search.
// The peer's own cut (layers / pp each, the rest on the last stage) is charged by formula 14 as it stands. That formula
// forgets how slow inner stages are and charges the first for less than it delays, so every other cut is charged
//   sum S + (chunks - 1) max S + (15) + resharding,  never less than (14),
// and wins only when even so it beats the peer's cut. S is a stage's time without gradient sync.
// Threads: pure. Cost: dominated by candidates whose bound beats the answer. Source: DESIGN 3.5.
#include <cstdint>
#include <optional>

#include "planner/problems/galvatron.h"

namespace coxswain::planner {

struct GalvatronFound {
  GalvatronPlan plan;
  std::int64_t num_labels = 0;
};

/// None: nothing fits.
[[nodiscard]] std::optional<GalvatronFound> search_galvatron(const GalvatronInstance& instance);

}  // namespace coxswain::planner
