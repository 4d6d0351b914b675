#include "cost_model/mesh_times.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "common/ensure.h"

#include "cost_model/collective_time.h"
#include "cost_model/mesh_facts.h"
#include "cost_model/offload_time.h"
#include "cost_model/roofline.h"
#include "plan/zero.h"

namespace coxswain::cost_model {
namespace {

using collective::CollectiveKind;
using Devices = std::vector<plan::DeviceId>;

constexpr std::int64_t kFloat32Bytes = 4;

std::int64_t computed_bytes(plan::Precision precision) { return size_of(plan::computed_dtype(precision)).value; }

Ticks collective_ticks(const CostModel& cost, CollectiveKind kind, Bytes payload, const Devices& devices) {
  if (devices.size() < 2 || payload.value == 0) return 0;
  return to_ticks(cost.estimate_collective(kind, payload, devices));
}

/// C36: among those who hold equal shards, while the other positions of the tensor axis do the same.
Ticks shard_ticks(const CostModel& cost, CollectiveKind kind, Bytes payload, const Devices& devices, int tensor) {
  if (tensor == 1 || devices.size() < 2 || payload.value == 0) return collective_ticks(cost, kind, payload, devices);
  GroupShape shape = shape_of(cost.resources(), devices);
  shape.side_by_side = tensor;
  return to_ticks(cost.estimate_shaped_collective(kind, payload, shape));
}

Bytes divided(Bytes bytes, std::int64_t parts) { return Bytes((bytes.value + parts - 1) / parts); }

/// A device of the mesh; the axes that are not used have none.
plan::DeviceId own_device(const Mesh& mesh) {
  for (const Devices* group : {&mesh.replica_group, &mesh.tensor_group, &mesh.context_group}) {
    if (!group->empty()) return group->front();
  }
  return {};
}

/// C25: the whole stream of a micro-batch, as it enters and leaves a run of contractions.
Bytes stream_bytes(const ModelFacts& facts, const BlockWork& work) {
  return divided(std::max(facts.activation_bytes(work.block, work.samples, work.precision),
                          facts.activation_bytes(work.block + 1, work.samples, work.precision)),
                 work.context);
}

/// C25: in forward a gather before and a scatter after each run; in backward the same, and the input gathered anew.
void add_tensor_axis(const CostModel& cost, const BlockWork& work, const Mesh& mesh, MeshTicks& ticks) {
  if (work.tensor == 1) return;
  const Bytes stream = stream_bytes(cost.facts(), work);
  const Ticks gather = collective_ticks(cost, CollectiveKind::AllGather, stream, mesh.tensor_group);
  const Ticks scatter = collective_ticks(cost, CollectiveKind::ReduceScatter, stream, mesh.tensor_group);
  const int runs = cost.facts().shard(work.block).num_runs;
  ticks.forward += runs * (gather + scatter);
  ticks.backward += runs * (2 * gather + scatter);
  ticks.weight += runs * gather;  // C28: the input, for its product with the gradient
}

/// The devices of `axes`, the first one's group.
Devices group_of(const Mesh& mesh, std::span<const plan::MeshAxis> axes, plan::AxisSet set) {
  std::size_t size = 1;
  for (const plan::MeshAxis& axis : axes) size *= static_cast<std::size_t>(axis.size);
  const Devices* all = &mesh.devices;
  for (const Devices* group : {&mesh.tensor_group, &mesh.context_group})
    if (all->size() != size && group->size() == size) all = group;
  COX_ENSURE(all->size() == size, all->size(), size);
  Devices group;
  for (const int position : plan::members_of(axes, set, 0)) group.push_back((*all)[static_cast<std::size_t>(position)]);
  return group;
}

/// C55: what a CPU copies beside a collective with the cores that compute: a gathered whole to its place, the parts of
/// what is scattered or summed one after another, both in an exchange.
Ticks copy_ticks(const CostModel& cost, CollectiveKind kind, Bytes payload, int device_class) {
  const cluster::DeviceClass& device = cost.resources().device_classes[static_cast<std::size_t>(device_class)];
  if (device.kind != cluster::DeviceKind::Cpu || device.memory_bandwidth.value.value <= 0) return 0;
  const std::int64_t copies = kind == CollectiveKind::AllToAll ? 2 : 1;
  return to_ticks(payload * (2 * copies) / device.memory_bandwidth.value);  // read and written
}

/// C55: every transition is waited for; backward runs the duals.
void add_transitions(const CostModel& cost, const BlockWork& work, const MeshFacts& facts, const Mesh& mesh,
                     MeshTicks& ticks) {
  for (const MeshTransition& transition : facts.transitions()) {
    const Devices group = group_of(mesh, facts.axes(), transition.axes);
    const Bytes payload = facts.payload(transition, work.samples, work.precision);
    const Ticks copies = copy_ticks(cost, transition.kind, payload, work.device_class);
    ticks.forward += collective_ticks(cost, transition.kind, payload, group) + copies;
    if (transition.has_gradient)
      ticks.backward += collective_ticks(cost, dual_of(transition.kind), payload, group) + copies;
  }
}

/// C29: `bytes` to the next device of the ring; `flows` rings of one replica leave a node side by side.
Ticks hop_ticks(const CostModel& cost, Bytes bytes, const Devices& ring, std::int64_t flows) {
  const cluster::ResourceGraph& graph = cost.resources();
  Ticks longest = 0;
  for (std::size_t i = 0; i < ring.size(); ++i) {
    const plan::DeviceId from = ring[i], to = ring[(i + 1) % ring.size()];
    Seconds time = cost.estimate_transfer(bytes, from, to);
    const cluster::LinkClass& link = cluster::link_between(graph, from, to);
    if (cluster::locate(graph, from).node != cluster::locate(graph, to).node)
      time += bytes / link.bandwidth.value * (sharing_slowdown(link, flows) - 1.0);
    longest = std::max(longest, to_ticks(time));
  }
  return longest;
}

/// C29, C56: keys and values that a device of the ring passes on.
Bytes passed_bytes(const ModelFacts& whole, const BlockWork& work, const MeshFacts* facts) {
  if (facts != nullptr) {
    Bytes passed{0};
    for (const MeshRing& ring : facts->rings()) passed += facts->ring_bytes(ring, work.samples, work.precision);
    return passed;
  }
  // A key head that several devices of a tensor axis need is on all of them.
  const model::BlockAttention& attention = whole.attention(work.block);
  const std::int64_t heads = attention.num_key_heads > 0 ? attention.num_key_heads : work.tensor;
  return divided(whole.key_value_bytes(work.block, work.samples, work.precision),
                 work.context * std::min<std::int64_t>(work.tensor, heads));
}

/// C29: while a device works on one block of keys and values it passes the block on and receives the next.
void add_context_axis(const CostModel& cost, const BlockWork& work, const BlockTime& time, const Mesh& mesh,
                      MeshTicks& ticks) {
  if (work.context == 1) return;
  const MeshFacts* facts = cost.facts().mesh(work.block, work.tensor, work.context);
  const Bytes passed = passed_bytes(cost.facts(), work, facts);
  if (passed.value == 0) return;
  const auto exposed = [&](Bytes bytes, Seconds compute) {
    const Ticks piece = to_ticks(compute / static_cast<double>(work.context));
    return (work.context - 1) * std::max<Ticks>(0, hop_ticks(cost, bytes, mesh.context_group, work.tensor) - piece);
  };
  const Ticks forward = exposed(passed, time.attention_forward);
  ticks.forward += forward;
  // Keys and values once more, and their gradients as they are summed.
  ticks.backward += exposed(passed * 2, time.attention_backward);
  if (facts != nullptr) return;  // C56: a ring does not run again
  const model::BlockAttention& attention = cost.facts().attention(work.block);
  const std::vector<int>& replayed = cost.facts().totals(work.block, work.samples).replayed;
  const bool again = std::any_of(replayed.begin(), replayed.end(), [&](int op) { return attention.contains(op); });
  if (work.recompute == plan::Recompute::Selective && again) ticks.recompute += forward;
}

/// C32: tokens to their experts and back, in backward their gradients the same way.
void add_expert_axis(const CostModel& cost, const BlockWork& work, const BlockTime& time, const Mesh& mesh,
                     MeshTicks& ticks) {
  if (work.expert == 1) return;
  const double even = static_cast<double>(
      divided(cost.facts().dispatch_bytes(work.block, work.samples, work.precision), work.tensor * work.context).value);
  const Bytes payload(std::llround(even * time.expert_imbalance));
  const Ticks exchange = collective_ticks(cost, CollectiveKind::AllToAll, payload, mesh.expert_group);
  ticks.forward += 2 * exchange;
  ticks.backward += 2 * exchange;
}

/// C34: kept bytes leave beside the forward and come back beside the backward.
void add_host_moves(const CostModel& cost, const BlockWork& work, const BlockTime& time, const Mesh& mesh,
                    MeshTicks& ticks) {
  if (mesh.offload != plan::Offload::Activations) return;
  const Ticks move =
      to_ticks(estimate_host_transfer(cost.resources(), kept_bytes(cost.facts(), work, time), own_device(mesh)));
  ticks.forward = std::max(ticks.forward, move);
  ticks.backward = std::max(ticks.backward, move);
  ticks.input = std::max(ticks.input, move);
}

}  // namespace

Mesh make_mesh(const plan::Stage& stage, int replica) {
  const plan::Replica& own = stage.replicas[static_cast<std::size_t>(replica)];
  const auto part = [](const plan::Replica& of, int position) {
    return of.devices[static_cast<std::size_t>(position * of.tensor)];
  };
  Mesh mesh;
  mesh.zero_stage = plan::zero_of(stage);
  mesh.offload = stage.offload;
  mesh.devices = own.devices;
  mesh.tensor_group.assign(own.devices.begin(), own.devices.begin() + own.tensor);
  for (int c = 0; c < own.context; ++c) mesh.context_group.push_back(part(own, c));
  const auto count = static_cast<int>(stage.replicas.size());
  const auto add = [&](int other) {
    const plan::Replica& of = stage.replicas[static_cast<std::size_t>(other)];
    for (int c = 0; c < of.context; ++c) {
      mesh.replica_group.push_back(part(of, c));
      if (other % own.expert == replica % own.expert) mesh.expert_replica_group.push_back(part(of, c));
    }
    if (other / own.expert == replica / own.expert) mesh.expert_group.push_back(part(of, 0));
  };
  add(replica);
  for (int other = 0; other < count; ++other) {
    if (other != replica) add(other);
  }
  return mesh;
}

MeshTicks estimate_gathers(const PersistentElements& elements, plan::Precision precision, int zero_stage,
                           const ShardCollective& collective) {
  MeshTicks ticks;
  if (zero_stage < 2) return ticks;
  const auto over_shards = [&](CollectiveKind kind, std::int64_t bytes) {
    const std::int64_t experts = elements.held_experts;
    const Ticks others = collective(kind, Bytes(bytes * (elements.held - elements.tied - experts)), false);
    return experts == 0 ? others : others + collective(kind, Bytes(bytes * experts), true);
  };
  ticks.backward = over_shards(CollectiveKind::ReduceScatter, kFloat32Bytes);
  if (zero_stage < 3) return ticks;
  ticks.forward = over_shards(CollectiveKind::AllGather, computed_bytes(precision));
  ticks.backward += ticks.forward;
  return ticks;
}

MeshTicks estimate_beside(MeshTicks work, const MeshTicks& gathers, plan::Recompute recompute) {
  work.forward = std::max(work.forward, gathers.forward);
  work.backward = std::max(work.backward, gathers.backward);
  // C28: parameters are gathered for I and for W, their gradients scattered behind W.
  work.input = std::max(work.input, gathers.forward);
  work.weight = std::max(work.weight, gathers.backward);
  if (recompute == plan::Recompute::Full) work.recompute = std::max(work.recompute, gathers.forward);
  return work;
}

MeshTicks estimate_block_on_mesh(const CostModel& cost, const BlockWork& work, const Mesh& mesh) {
  const BlockTime time = cost.estimate_block(work);
  MeshTicks ticks{to_ticks(time.forward), to_ticks(time.backward), 0, to_ticks(time.weight), 0};
  if (work.recompute == plan::Recompute::Selective) ticks.recompute = to_ticks(time.replayed);
  if (const MeshFacts* facts = cost.facts().mesh(work.block, work.tensor, work.context)) {
    add_transitions(cost, work, *facts, mesh, ticks);
  } else {
    add_tensor_axis(cost, work, mesh, ticks);
  }
  add_context_axis(cost, work, time, mesh, ticks);
  add_expert_axis(cost, work, time, mesh, ticks);
  if (work.recompute == plan::Recompute::Full) ticks.recompute = ticks.forward;
  ticks.input = ticks.backward - ticks.weight;
  add_host_moves(cost, work, time, mesh, ticks);
  if (mesh.zero_stage < 2) return ticks;
  // C26: fetched one block ahead, so only what lasts longer than the work beside it shows.
  const PersistentElements elements =
      count_persistent(cost.facts(), work.block, work.block + 1, work.tensor, work.expert);
  const MeshTicks gathers = estimate_gathers(
      elements, work.precision, mesh.zero_stage, [&](CollectiveKind kind, Bytes payload, bool experts) {
        const bool fewer = experts && work.expert > 1;
        return shard_ticks(cost, kind, payload, fewer ? mesh.expert_replica_group : mesh.replica_group, work.tensor);
      });
  return estimate_beside(ticks, gathers, work.recompute);
}

Ticks estimate_update_on_mesh(const CostModel& cost, const PersistentElements& elements, plan::Precision precision,
                              const Mesh& mesh) {
  const auto replicas = static_cast<std::int64_t>(mesh.replica_group.size());
  const std::int64_t holders =
      mesh.expert_replica_group.empty() ? replicas : static_cast<std::int64_t>(mesh.expert_replica_group.size());
  const plan::DeviceId own = mesh.replica_group.front();
  const bool split = mesh.zero_stage >= 1 && replicas > 1;
  const std::int64_t updated = split ? split_elements(elements, elements.tied, replicas, holders) : elements.held;
  Ticks ticks = to_ticks(mesh.offload == plan::Offload::Optimizer
                             ? estimate_host_update(cost.resources(), updated, computed_bytes(precision), own)
                             : cost.estimate_optimizer(updated, own.device_class));
  // Everyone needs what the others updated; at stage 3 it is gathered when it is used.
  if (!split) return ticks;
  const std::int64_t experts = holders == replicas ? 0 : elements.held_experts;
  const int tensor = std::max(1, static_cast<int>(mesh.tensor_group.size()));
  const auto gather = [&](std::int64_t gathered, const Devices& group) {
    return shard_ticks(cost, CollectiveKind::AllGather, Bytes(computed_bytes(precision) * gathered), group, tensor);
  };
  if (mesh.zero_stage >= 3) return ticks + gather(elements.shared, mesh.replica_group);
  return ticks + gather(elements.held - elements.tied - experts, mesh.replica_group) +
         gather(experts, mesh.expert_replica_group);
}

// C33: around a ring of n devices each element moves (n - 1) / n of its bytes.
std::int64_t reduced_elements(std::int64_t others, std::int64_t experts, std::int64_t replicas, int expert) {
  if (expert == 1 || experts == 0 || replicas < 2) return others + experts;
  const std::int64_t holders = replicas / expert;
  if (holders < 2) return others;
  const double ratio = static_cast<double>(holders - 1) / static_cast<double>(holders) /
                       (static_cast<double>(replicas - 1) / static_cast<double>(replicas));
  return others + static_cast<std::int64_t>(std::llround(static_cast<double>(experts) * ratio));
}

}  // namespace coxswain::cost_model
