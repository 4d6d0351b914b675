#pragma once
// Which of equal devices takes which place of a plan, so that most of the state stays where it is: device ids are the
// last choice of a search, and among equal ones any choice costs the same. Called by replan. Threads: pure. Source:
// DESIGN 3.5 ("equal nodes and zones are one orbit, ids are filled in last").
#include <cstdint>
#include <vector>

#include "cluster/change.h"
#include "cost_model/cost_model.h"

namespace coxswain::planner {

/// The column of each row so that the sum of value[row][column] is greatest. Requires: a square matrix.
/// Cost: O(n^3), shortest augmenting paths (Kuhn 1955, Munkres 1957). Deterministic.
[[nodiscard]] std::vector<int> assign_most(const std::vector<std::vector<std::int64_t>>& value);

/// `next` with its devices exchanged for equal ones so that more of what they hold under `running` stays (C71): devices
/// of one class inside a node, and whole nodes of one group that share the innermost domain of the network. Every link
/// between two places stays as it is, and so does the estimate. Up to kMaxExactNodes nodes of a domain are matched
/// best, more of them kind by kind, those with most in common first.
[[nodiscard]] plan::Plan assign_devices(const cost_model::CostModel& cost, const plan::Plan& running,
                                        const cluster::DeviceMap& devices, const plan::Plan& next);

inline constexpr std::size_t kMaxExactNodes = 48;

}  // namespace coxswain::planner
