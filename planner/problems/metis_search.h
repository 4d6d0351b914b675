#pragma once
// The best plan of Metis's problem. Outer loop over micro-batch counts, best bound first; inside, stages from the loss
// side as a Problem of the label search, since the micro-batches in flight, and so the memory, are known from there. A
// stage is a shard of one type with any data degree that divides the micro-batch, or of two types, each with a power of
// two of replicas, whose samples are split so that the slower type is as fast as can be.
// Exact over these for up to 2,000,000 labels a count; beyond that the bound says how far off it may be.
// Called by metis. Threads: pure. Source: DESIGN 3.5.
#include <optional>

#include "planner/problems/metis_model.h"

namespace coxswain::planner {

struct MetisFound {
  MetisPlan plan;
  MetisEstimate estimate;
  double lower_bound_ms = 0;  // no plan of the searched space takes less
  std::int64_t num_labels = 0;
};

/// None: nothing fits.
[[nodiscard]] std::optional<MetisFound> search_metis(const MetisModel& model);

}  // namespace coxswain::planner
