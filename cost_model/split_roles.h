#pragma once
// Private to cost_model/: which replicas of a role the simulator may run as one. A role's replicas share a list, but
// where their neighbours differ (one exchanges with a fast device, the next with a slow one) they do not run alike.
// Threads: pure.
#include <vector>

#include "plan/plan.h"

namespace coxswain::cost_model {

/// Up to so many replicas they are told apart; above, a role runs as its first replica does.
inline constexpr std::size_t kMaxSplitReplicas = 1024;

struct SplitRoles {
  plan::Plan plan;         // the same with more roles, in order
  std::vector<int> of;     // the role of the given plan, by new role
  std::vector<int> first;  // the first new role, by role of the given plan
};
/// The fewest roles whose replicas exchange the same samples with replicas of the same roles.
/// Cost: O(edges of the replica graph x log x stages).
[[nodiscard]] SplitRoles split_roles(const plan::Plan& plan);

}  // namespace coxswain::cost_model
