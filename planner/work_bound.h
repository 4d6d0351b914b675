#pragma once
// C23: no plan on given units steps faster than all work over all speed, with no communication and no bubble. Called by
// PipelineProblem (rest of a label) and for the order of the outer loop. Threads: pure once made.
// Source: docs/cost_model.md, C23.
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "planner/label_search.h"
#include "planner/pools.h"
#include "planner/span_costs.h"

namespace coxswain::planner {

class WorkBound {
 public:
  /// For micro-batches of `micro` samples, on units of `kinds` (by pool, any of them). Rates are the best over the
  /// numbers of samples that a replica may have; `coarse`: over powers of two and `micro`, enough where a sample takes
  /// less the more there are.
  WorkBound(const SpanCosts& spans, const std::vector<std::vector<UnitKind>>& kinds, std::int64_t micro,
            bool coarse = false);

  /// Least time in which `devices` take `samples` samples through blocks [0, end_block) and back; kNoCost without any.
  [[nodiscard]] Cost least_time(int end_block, const Counts& devices, std::int64_t samples) const;

  /// Any prices of the blocks give a bound: a device earns at most `speed` a tick. Several are kept, the best one
  /// counts.
  struct Prices {
    std::vector<double> sum;    // of a sample through the blocks before
    std::vector<double> speed;  // by pool
  };
  [[nodiscard]] const std::vector<Prices>& prices() const { return prices_; }
  /// Least time at `speed`, for samples that are worth `prices`.
  [[nodiscard]] static Cost time_at(const Prices& prices, int end_block, double speed, std::int64_t samples);

 private:
  std::vector<Prices> prices_;
};

/// Bounds that were made already, by units and micro-batch. Threads: one.
class WorkBounds {
 public:
  std::shared_ptr<const WorkBound> get(const SpanCosts& spans, const std::vector<std::vector<UnitKind>>& kinds,
                                       std::int64_t micro, bool coarse);

 private:
  std::map<std::pair<std::int64_t, std::vector<std::vector<UnitKind>>>, std::shared_ptr<const WorkBound>> made_;
};

}  // namespace coxswain::planner
