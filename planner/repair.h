#pragma once
// What little can be done to a running plan after the cluster changed: go on, without the replicas that lost a device,
// with spare or new devices in place of lost ones or beside the others, with samples shared out anew. Simulated beside
// what the search finds, since a smaller change moves less. Called by replan. Threads: pure. Source:
// docs/replanning.md.
#include <string>
#include <vector>

#include "planner/planner.h"

namespace coxswain::planner {

struct RepairedPlan {
  plan::Plan plan;  // with roles and hashes of the changed cluster
  std::string how;  // "the running plan", "without the replicas that lost a device", ...
  friend bool operator==(const RepairedPlan&, const RepairedPlan&) = default;
};
/// Each different, the running plan itself first if it can go on; only what the constraints and capabilities allow. A
/// plan may need more memory than there is. Requires: request.running, checked by replan.
[[nodiscard]] std::vector<RepairedPlan> repair_plan(const Request& request);

/// Does `plan` have what `constraints` ask for?
[[nodiscard]] bool meets(const Constraints& constraints, const plan::Plan& plan);

/// `micro` samples over `replicas`, in proportion to what each does in a second in blocks [first_block, end_block), at
/// least one each. Empty where there are too few.
[[nodiscard]] std::vector<std::int64_t> share_samples(const cost_model::CostModel& cost, plan::Precision precision,
                                                      int first_block, int end_block,
                                                      const std::vector<plan::Replica>& replicas, std::int64_t micro);

}  // namespace coxswain::planner
