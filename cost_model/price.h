#pragma once
// Money: what a step of a plan costs, and the least that any plan's step can cost. Called by the simulator's estimate
// and by planner/ (objective cost). Threads: pure. Source: docs/cost_model.md, C60-C62.
#include <optional>

#include "cost_model/cost_model.h"

namespace coxswain::cost_model {

/// C60 + C61: step x prices of the used devices, and bytes over priced links. Nothing where a used device has no price.
/// Cost: O(devices); with priced links O(ranks x peers).
[[nodiscard]] std::optional<cluster::Usd> estimate_cost_per_step(const CostModel& cost, const plan::Plan& plan,
                                                                 Seconds step);

/// C62: no plan's step costs less: every block of every sample on the class that does it for least money, no bubble, no
/// communication. Nothing where a device class of the cluster has no price. `max_tensor`: widest tensor axis.
[[nodiscard]] std::optional<cluster::Usd> least_cost_per_step(const CostModel& cost, std::int64_t global_batch,
                                                              plan::Precision precision, int max_tensor);

/// Names of the cluster's device classes that have no price, comma-separated; empty: all have one.
[[nodiscard]] std::string unpriced_classes(const cluster::ResourceGraph& graph);

}  // namespace coxswain::cost_model
