#pragma once
// Rows of replicas over the pools of a class for Sailor's contest: which pools each row takes its replicas from, and in
// which order, so that the slowest reduction between neighbours in any row is short. Rows share the GPUs of the pools.
// Used where replicas are dealt to zones (sailor_zones.h). Deterministic. Threads: pure. Source: sailor_zones.h.
#include <optional>
#include <vector>

#include "planner/problems/sailor.h"

namespace coxswain::planner {

struct SailorRow {
  std::vector<int> pools;  // in the order that decides between equals
  int tp = 1, count = 1;
  std::vector<double> seconds;  // of the reduction over the link from one of `pools` to another, row by row
};

/// The pools of the replicas of every row, in their order, with no reduction longer than `limit`. `room`: GPUs by pool.
/// None: no such rows were found, which does not prove that there are none.
[[nodiscard]] std::optional<std::vector<std::vector<int>>> fill_rows(const std::vector<SailorRow>& rows,
                                                                     std::vector<int> room, double limit);

/// The least limit under which `fill_rows` finds rows; infinite: under none.
[[nodiscard]] double least_row_limit(const std::vector<SailorRow>& rows, const std::vector<int>& room);

}  // namespace coxswain::planner
