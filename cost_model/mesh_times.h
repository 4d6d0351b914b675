#pragma once
// Time of a block on a mesh: its share of the work, the collectives of its tensor axis, what ZeRO gathers and scatters
// beside it. The simulator (action_times) takes all of it from here, the search (span_costs) the tensor axis; ZeRO's
// part the search adds by stage (stage_cost), since it depends on the replicas: tests hold it to at most the
// simulator's. Threads: pure. Source: docs/cost_model.md, C25 (tensor and sequence), C26 (ZeRO).
#include <vector>

#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"
#include "cost_model/memory.h"

namespace coxswain::cost_model {

/// Who works on a replica of a stage, and who holds equal shards of the stage.
struct Mesh {
  std::vector<plan::DeviceId> tensor_group;   // of one replica, in mesh order
  std::vector<plan::DeviceId> replica_group;  // one of each replica
  int zero_stage = 0;
};

struct MeshTicks {
  Ticks forward = 0, backward = 0;  // with communication that the compute waits for
  Ticks input = 0, weight = 0;      // the backward as I and W
};
/// `work.tensor` = size of mesh.tensor_group. C25, C26, C28.
[[nodiscard]] MeshTicks estimate_block_on_mesh(const CostModel& cost, const BlockWork& work, const Mesh& mesh);

/// C13 on what a device updates, and C26's gather of the updated parameters.
[[nodiscard]] Ticks estimate_update_on_mesh(const CostModel& cost, const PersistentElements& elements,
                                            plan::Precision precision, const Mesh& mesh);

/// Gradients that are reduced bucket by bucket when the last backward is done: none where ZeRO scatters them at once.
[[nodiscard]] inline bool reduces_buckets(int zero_stage) { return zero_stage < 2; }
/// What such a bucket costs: an all_reduce, or only the first half of one (C26).
[[nodiscard]] inline collective::CollectiveKind bucket_collective(int zero_stage) {
  return zero_stage == 0 ? collective::CollectiveKind::AllReduce : collective::CollectiveKind::ReduceScatter;
}

}  // namespace coxswain::cost_model
