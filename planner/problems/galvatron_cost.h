#pragma once
// The peer's cost and memory formulas, in milliseconds and MB. What needs a table entry that is not there is none: such
// a plan does not exist. Requires everywhere: a strategy of list_strategies for that pp, dp dividing the chunk.
// Threads: pure. Source: formulas 1 to 16 of the Galvatron-2 contest, in their numbers.
#include <algorithm>

#include "planner/problems/galvatron.h"

namespace coxswain::planner {

struct GalvatronSetting {
  int pp = 1;
  std::int64_t chunks = 1;
};

[[nodiscard]] inline int degree(const GalvatronStrategy& strategy) { return std::max(strategy.tp, strategy.sp); }

/// All that multiply to the GPUs of a stage and divide a chunk; of one degree neighbours. Without recompute: for the
/// ends.
[[nodiscard]] std::vector<GalvatronStrategy> list_strategies(const GalvatronInstance& instance,
                                                             const GalvatronSetting& setting, bool with_recompute);

/// Formulas 2 to 7.
[[nodiscard]] std::optional<double> layer_ms(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                             const GalvatronStrategy& strategy, bool sync);
/// Formula 8: what `stage` has of embedding and head; 0 inside.
[[nodiscard]] std::optional<double> end_ms(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                           const GalvatronStrategy& strategy, int stage);
/// Formula 9, rounded up.
[[nodiscard]] std::optional<std::int64_t> layer_mb(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                                   const GalvatronStrategy& strategy, int stage);
/// Formula 10, rounded up.
[[nodiscard]] std::optional<std::int64_t> end_mb(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                                 const GalvatronStrategy& strategy, int stage);
/// Formula 12 where the plan's largest degree is `largest` and something has tp > 1.
[[nodiscard]] std::int64_t buffer_mb(const GalvatronInstance& instance, const GalvatronSetting& setting, int largest);
/// Formula 13.
[[nodiscard]] std::int64_t budget_mb(const GalvatronInstance& instance);
/// Formula 16, per chunk; 0 between equal degrees.
[[nodiscard]] std::optional<double> resharding_ms(const GalvatronInstance& instance, const GalvatronSetting& setting,
                                                  int from_degree, int to_degree);

/// Formulas 14 and 15, with (16) once per chunk. None: a table entry is missing.
[[nodiscard]] std::optional<double> estimate_galvatron_ms(const GalvatronInstance& instance, const GalvatronPlan& plan);
/// Left side of (13) by stage.
[[nodiscard]] std::optional<std::vector<std::int64_t>> stage_memory_mb(const GalvatronInstance& instance,
                                                                       const GalvatronPlan& plan);

}  // namespace coxswain::planner
