#pragma once
// The outer loop of Sailor's contest: every micro-batch size and replica count is a shape; those whose bounds
// beat the best plan so far are searched, small ones first, without and then with every kind of mixed stage. Work
// is bounded by counts of labels and plans, never by time. Threads: pure. Source: sailor_stages.h.
#include "planner/problems/sailor_zones.h"

namespace coxswain::planner {

struct SailorFound {
  PricedSailorPlan best;
  std::int64_t num_labels = 0, num_searches = 0;
  bool complete = true;  // false: a limit on work ended some search
};

/// None: no valid plan.
[[nodiscard]] std::optional<SailorFound> search_sailor(const SailorModel& model, bool strict);

}  // namespace coxswain::planner
