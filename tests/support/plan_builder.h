#pragma once
// Clusters and valid plans in a line, for tests of plan/, executor/ and what stands on them. Threads: pure.
#include <vector>

#include "plan/program.h"

namespace coxswain {

/// One node with `counts[c]` devices of class c ("cpu-0", "cpu-1", ...; class c has 1 / (c + 1) of a core).
[[nodiscard]] cluster::ResourceGraph make_cpu_cluster(const std::vector<std::int64_t>& counts);

struct PlanOptions {
  /// First block of each part after the first; without chunks a part is a stage.
  std::vector<int> cuts = {};
  /// Per stage, the samples of each replica; replicas take the free devices of class 0 in turn.
  std::vector<std::vector<std::int64_t>> samples = {{4}};
  std::int64_t count = 4;
  plan::ScheduleKind schedule = plan::ScheduleKind::OneForwardOneBackward;
  int receive_credits = 2;
  Bytes bucket_bytes{1};  // a bucket a block
  int num_chunks = 1;
};
/// A valid plan when the options are consistent (equal sums, enough devices).
[[nodiscard]] plan::Plan make_plan(const model::ModelGraph& graph, const cluster::ResourceGraph& resources,
                                   const PlanOptions& options);

}  // namespace coxswain
