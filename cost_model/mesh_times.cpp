#include "cost_model/mesh_times.h"

#include <algorithm>

namespace coxswain::cost_model {
namespace {

using collective::CollectiveKind;

constexpr std::int64_t kFloat32Bytes = 4;

std::int64_t computed_bytes(plan::Precision precision) {
  return size_of(precision == plan::Precision::BFloat16 ? DType::BFloat16 : DType::Float32).value;
}

Ticks collective_ticks(const CostModel& cost, CollectiveKind kind, Bytes payload,
                       const std::vector<plan::DeviceId>& devices) {
  if (devices.size() < 2 || payload.value == 0) return 0;
  return to_ticks(cost.estimate_collective(kind, payload, devices));
}

/// C25: the whole stream of a micro-batch, as it enters and leaves a run of contractions.
Bytes stream_bytes(const ModelFacts& facts, const BlockWork& work) {
  return std::max(facts.activation_bytes(work.block, work.samples, work.precision),
                  facts.activation_bytes(work.block + 1, work.samples, work.precision));
}

}  // namespace

MeshTicks estimate_block_on_mesh(const CostModel& cost, const BlockWork& work, const Mesh& mesh) {
  const BlockTime time = cost.estimate_block(work);
  MeshTicks ticks{to_ticks(time.forward), to_ticks(time.backward), 0, to_ticks(time.weight)};
  const ModelFacts& facts = cost.facts();
  // C25: in forward a gather before and a scatter after each run; in backward the same, and the input gathered anew.
  if (work.tensor > 1) {
    const Bytes stream = stream_bytes(facts, work);
    const Ticks gather = collective_ticks(cost, CollectiveKind::AllGather, stream, mesh.tensor_group);
    const Ticks scatter = collective_ticks(cost, CollectiveKind::ReduceScatter, stream, mesh.tensor_group);
    const int runs = facts.shard(work.block).num_runs;
    ticks.forward += runs * (gather + scatter);
    ticks.backward += runs * (2 * gather + scatter);
    ticks.weight += runs * gather;  // C28: the input, for its product with the gradient
  }
  ticks.input = ticks.backward - ticks.weight;
  // C26: fetched one block ahead, so only what lasts longer than the work beside it shows.
  if (mesh.zero_stage >= 2) {
    const std::int64_t elements = count_persistent(facts, work.block, work.block + 1, work.tensor).held;
    const Ticks scatter =
        collective_ticks(cost, CollectiveKind::ReduceScatter, Bytes(kFloat32Bytes * elements), mesh.replica_group);
    Ticks gather = 0;
    if (mesh.zero_stage >= 3) {
      gather = collective_ticks(cost, CollectiveKind::AllGather, Bytes(computed_bytes(work.precision) * elements),
                                mesh.replica_group);
    }
    ticks.forward = std::max(ticks.forward, gather);
    ticks.backward = std::max(ticks.backward, gather + scatter);
    // C28: parameters are gathered for I, their gradients scattered behind W.
    ticks.input = std::max(ticks.input, gather);
    ticks.weight = std::max(ticks.weight, scatter);
  }
  return ticks;
}

Ticks estimate_update_on_mesh(const CostModel& cost, const PersistentElements& elements, plan::Precision precision,
                              const Mesh& mesh) {
  const auto replicas = static_cast<std::int64_t>(mesh.replica_group.size());
  const int device_class = mesh.replica_group.front().device_class;
  const bool split = mesh.zero_stage >= 1 && replicas > 1;
  const std::int64_t updated = split ? (elements.owned + replicas - 1) / replicas : elements.owned;
  Ticks ticks = to_ticks(cost.estimate_optimizer(updated, device_class));
  // Everyone needs what the others updated; at stage 3 it is gathered when it is used.
  if (split && mesh.zero_stage < 3)
    ticks += collective_ticks(cost, CollectiveKind::AllGather, Bytes(computed_bytes(precision) * elements.owned),
                              mesh.replica_group);
  return ticks;
}

}  // namespace coxswain::cost_model
