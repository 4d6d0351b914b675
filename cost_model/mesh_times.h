#pragma once
// Time of a block on a mesh: its share of the work, the collectives of its tensor axis, the ring of its context axis,
// the exchanges of its expert axis, what ZeRO gathers and scatters beside it, what is moved to the host and back.
// The simulator (action_times) takes all of it from here, the search (span_costs) what depends on one replica; what
// depends on all replicas it adds by stage (estimate_gathers): tests hold it to at most the simulator's.
// Threads: pure. Source: docs/cost_model.md, C25 (tensor and sequence), C26 (ZeRO), C29 (context), C30 and C34
// (offload), C31 (recompute), C32 and C33 (experts), C54-C56 (a mesh as it
// will run).
#include <functional>
#include <vector>

#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"
#include "cost_model/memory.h"

namespace coxswain::cost_model {

/// Who works on a replica of a stage, and who holds equal shards of the stage. One device each where there is no axis.
struct Mesh {
  std::vector<plan::DeviceId> tensor_group;   // of one replica and part of the sequence, in mesh order
  std::vector<plan::DeviceId> replica_group;  // one of each replica and part of the sequence
  int zero_stage = 0;
  std::vector<plan::DeviceId> context_group = {};         // of one replica: the parts of the sequence, in ring order
  std::vector<plan::DeviceId> expert_group = {};          // one of each replica that holds other experts
  std::vector<plan::DeviceId> expert_replica_group = {};  // of `replica_group`, who holds the same experts
  plan::Offload offload = plan::Offload::None;            // needs a device in one of the groups
  std::vector<plan::DeviceId> devices = {};  // of the replica, by position; empty: one of the first two groups is
};
/// The mesh of `replica`, its own device first in each group.
[[nodiscard]] Mesh make_mesh(const plan::Stage& stage, int replica);

struct MeshTicks {
  Ticks forward = 0, backward = 0;  // with communication that the compute waits for
  Ticks input = 0, weight = 0;      // the backward as I and W
  Ticks recompute = 0;              // more in backward, for work.recompute
};
/// `work.tensor`, `.context`, `.expert` = sizes of the groups. C25, C26, C28, C29, C31, C32, C34, C55, C56.
[[nodiscard]] MeshTicks estimate_block_on_mesh(const CostModel& cost, const BlockWork& work, const Mesh& mesh);

/// Whether `block` surely takes and keeps on a device what the block before it does: one of the same signature, with
/// streams of equal bytes around it, and not the last one, which holds the loss. `stream(cut)`: bytes before a block.
template <class Stream>
[[nodiscard]] bool costs_like_previous(const CostModel& cost, int block, Stream stream) {
  const ModelFacts& facts = cost.facts();
  return cost.costs_by_signature() && block > 1 && block + 1 < facts.num_blocks() &&
         facts.signature_of(block) == facts.signature_of(block - 1) && stream(block - 1) == stream(block) &&
         stream(block) == stream(block + 1);
}

/// Ticks of a collective of `payload` among those who hold equal shards: of experts' elements, or of the others.
using ShardCollective = std::function<Ticks(collective::CollectiveKind, Bytes payload, bool experts)>;
/// C26: what a block with `elements` (count_persistent) waits for beside its own work: parameters gathered before
/// forward and backward, gradients scattered after. A block takes the longer of the two (estimate_beside).
[[nodiscard]] MeshTicks estimate_gathers(const PersistentElements& elements, plan::Precision precision, int zero_stage,
                                         const ShardCollective& collective);
/// The longer of work and gathers. Recompute of a whole block gathers as its forward does.
[[nodiscard]] MeshTicks estimate_beside(MeshTicks work, const MeshTicks& gathers, plan::Recompute recompute);

/// C13 on what a device updates (C30 where the optimizer is offloaded), and C26's gather of the updated parameters.
[[nodiscard]] Ticks estimate_update_on_mesh(const CostModel& cost, const PersistentElements& elements,
                                            plan::Precision precision, const Mesh& mesh);

/// Gradients that are reduced bucket by bucket when the last backward is done: none where ZeRO scatters them at once.
[[nodiscard]] inline bool reduces_buckets(int zero_stage) { return zero_stage < 2; }
/// What such a bucket costs: an all_reduce, or only the first half of one (C26).
[[nodiscard]] inline collective::CollectiveKind bucket_collective(int zero_stage) {
  return zero_stage == 0 ? collective::CollectiveKind::AllReduce : collective::CollectiveKind::ReduceScatter;
}
/// C33: a bucket's elements, experts' counted by the bytes that they move among the fewer devices that hold them.
[[nodiscard]] std::int64_t reduced_elements(std::int64_t others, std::int64_t experts, std::int64_t replicas,
                                            int expert);

}  // namespace coxswain::cost_model
