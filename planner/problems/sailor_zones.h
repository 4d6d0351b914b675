#pragma once
// Zones and ring order for the stages that the search of Sailor's contest found: replicas of a class are dealt to its
// pools in many regular ways and in rows (sailor_deal.cpp), the best of which are then changed move by move (reorder,
// reverse or interleave replicas of one or of all stages, swap them between pools, use another pool, shift a cut) while
// that helps. Every plan is priced by the whole cost function. Deterministic; work is bounded by a count of plans.
// Threads: pure. Source: sailor_model.h.
#include <cstdint>
#include <optional>
#include <vector>

#include "planner/problems/sailor_spans.h"
#include "planner/problems/sailor_stages.h"

namespace coxswain::planner {

/// Replicas of one stage by class; two parts where the stage is mixed.
struct SailorPart {
  int class_index = 0, tp = 1, count = 1;
};

struct SailorSketch {
  int micro_batch = 1;
  struct Stage {
    int first = 0, end = 0;
    std::vector<SailorPart> parts;
  };
  std::vector<Stage> stages;
};

struct PricedSailorPlan {
  SailorPlan plan;
  SailorEstimate estimate;
  Cost cost = kNoCost;  // by the goal; kNoCost: over a limit
};

/// Fewer costs first; less traffic decides between equal ones.
[[nodiscard]] bool is_better(const PricedSailorPlan& a, const PricedSailorPlan& b);

/// None: no valid plan.
[[nodiscard]] std::optional<PricedSailorPlan> price(const SailorModel& model, const SailorGoal& goal, SailorPlan plan);

/// One more run at the end; equal neighbours become one.
void append_replicas(std::vector<SailorReplicas>& runs, SailorReplicas run);

/// The best of the regular ways, at most `max_plans` unlike ones, best first.
[[nodiscard]] std::vector<PricedSailorPlan> deal_zones(const SailorModel& model,
                                                       const std::vector<SailorClass>& classes, const SailorGoal& goal,
                                                       const SailorSketch& sketch, std::size_t max_plans);

/// The same where the rings are rows with short reductions (sailor_rows.h), for at most `max_orders` orders of the
/// zones; none where every class has one zone.
[[nodiscard]] std::vector<PricedSailorPlan> deal_rows(const SailorModel& model, const std::vector<SailorClass>& classes,
                                                      const SailorGoal& goal, const SailorSketch& sketch,
                                                      std::size_t max_orders, std::size_t max_plans);

/// Changes `plan` while that helps, pricing at most `max_plans`.
[[nodiscard]] PricedSailorPlan improve(const SailorModel& model, const SailorGoal& goal, PricedSailorPlan plan,
                                       std::int64_t max_plans);

}  // namespace coxswain::planner
