#include "cost_model/memory.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "common/ensure.h"
#include "cost_model/mesh_facts.h"
#include "cost_model/stage_peak.h"
#include "plan/experts.h"
#include "plan/program.h"
#include "plan/zero.h"

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kFloat32Bytes = 4;
constexpr std::int64_t kHalfBytes = 2;
/// Two float32 moments of AdamW.
constexpr std::int64_t kOptimizerBytes = 8;
/// Master, two moments, and the gradient as it comes in.
constexpr std::int64_t kHostBytes = 16;

/// The list of the replica's role; without one, that of the schedule that the plan names.
std::vector<plan::Action> list_of(const plan::Plan& plan, int stage, int replica) {
  for (const plan::Role& role : plan.roles) {
    if (role.stage == stage && std::find(role.replicas.begin(), role.replicas.end(), replica) != role.replicas.end())
      return role.actions;
  }
  return plan::make_schedule(plan.schedule, stage, static_cast<int>(plan.stages.size()),
                             static_cast<int>(plan.batch.count),
                             plan::num_chunks(plan.stages[static_cast<std::size_t>(stage)]));
}

PersistentMemory persistent_of(const CostModel& cost, const StageWork& work) {
  PersistentMemory memory = estimate_persistent_memory(
      count_persistent(cost.facts(), runs_of(work), work.tensor, work.expert, work.expert_index), work.precision,
      work.zero_stage, work.replicas * work.context, work.expert, work.offload);
  if (work.reduced_at_once > 0) {  // C26
    const Bytes early = memory.gradients - memory.late_gradients;
    memory.gradients = Bytes(kFloat32Bytes * memory.updated_elements);
    memory.late_gradients = memory.gradients - early;
    memory.gathered += Bytes(kFloat32Bytes * work.reduced_at_once);
  }
  return memory;
}

}  // namespace

Bytes kept_bytes(const ModelFacts& facts, const BlockWork& work, const BlockTime& time) {
  switch (work.recompute) {
    case plan::Recompute::None: return time.saved;
    case plan::Recompute::Selective: return time.selective;
    case plan::Recompute::Full: break;
  }
  return split_stream(facts.activation_bytes(work.block, work.samples, work.precision), work.tensor * work.context);
}

std::int64_t HeldBytes::peak(plan::ActionKind kind) const {
  switch (kind) {
    case plan::ActionKind::Forward: return forward;
    case plan::ActionKind::BackwardInput: return input;
    case plan::ActionKind::BackwardWeight: return weight;
    default: return backward;
  }
}

HeldBytes held_bytes(const BlockTime& time, plan::Recompute recompute, Bytes input, Bytes gradient) {
  const std::int64_t saved = time.saved.value;
  HeldBytes held{saved,
                 time.owed.value,
                 saved + time.forward_transient.value,
                 saved + time.transient.value,
                 saved + time.input_transient.value,
                 time.owed.value + time.weight_transient.value};
  if (recompute == plan::Recompute::None) return held;
  // C31: all that it would have kept is made again, while the gradients of what it sent wait.
  const bool full = recompute == plan::Recompute::Full;
  held.kept = full ? input.value : time.selective.value;
  const std::int64_t again = std::max(held.kept, (full ? held.forward : saved) + gradient.value);
  const std::int64_t plain = held.kept + time.plain_transient.value;
  held.forward = full ? plain : std::min(held.forward, plain);
  held.backward = std::max(held.backward, again);
  held.input = std::max(held.input, again);
  return held;
}

void HeldRun::add(const HeldBytes& block, std::int64_t times) {
  if (times == 0) return;
  const std::int64_t owed_before = (times - 1) * block.owed;
  // The first of them comes after the last one so far, the others after one of themselves.
  const std::int64_t before = times > 1 ? std::max(moved.last, block.kept) : moved.last;
  moved.forward = std::max(moved.forward, before + block.forward);
  moved.backward = std::max(moved.backward, before + block.backward);
  moved.input = std::max(moved.input + owed_before + block.owed, moved.last + block.input + owed_before);
  if (times > 1) moved.input = std::max(moved.input, block.kept + block.input + owed_before - block.owed);
  moved.last = block.kept;
  append(all, block, times);
}

std::int64_t HeldRun::held(plan::ActionKind kind, std::int64_t before, std::int64_t owed, bool moves) const {
  if (!moves) return before + owed + all.peak(kind);
  switch (kind) {
    case plan::ActionKind::Forward: return owed + moved.forward;
    case plan::ActionKind::BackwardInput: return owed + moved.input;
    case plan::ActionKind::BackwardWeight: return owed + all.weight;
    default: return owed + moved.backward;
  }
}

Bytes shared_bytes(const ModelFacts& facts, const BlockWork& work) {
  if (const MeshFacts* mesh = facts.mesh(work.block, work.tensor, work.context))
    return mesh->local().totals(plan::kBlock, work.samples).shared_bytes;
  return split_stream(facts.totals(work.block, work.samples).shared_bytes, work.tensor * work.context);
}

std::int64_t shard_of(std::int64_t all, std::int64_t experts, std::int64_t replicas, std::int64_t holders) {
  if (holders == replicas) return (all + replicas - 1) / replicas;
  return (all - experts + replicas - 1) / replicas + (experts + holders - 1) / holders;
}

PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block, int tensor, int expert) {
  return count_persistent(facts, {{first_block, end_block}}, tensor, expert);
}

PersistentElements count_persistent(const ModelFacts& facts, const std::vector<plan::BlockRun>& runs, int tensor,
                                    int expert, int expert_index) {
  PersistentElements count;
  const int first_block = runs.front().first_block;
  std::vector<std::int64_t> of_block(static_cast<std::size_t>(runs.back().end_block - first_block), 0);
  const auto is_inside = [&](int block) {
    return std::any_of(runs.begin(), runs.end(), [block](const plan::BlockRun& run) {
      return run.first_block <= block && block < run.end_block;
    });
  };
  const auto add = [&](int block, const ParameterFacts& parameter) {
    const std::int64_t elements = parameter.elements_at(tensor, expert, expert_index);
    if (!parameter.trainable) {
      count.frozen += size_of(parameter.dtype) * elements;
      return;
    }
    count.held += elements;
    const bool tied = !std::all_of(parameter.blocks.begin(), parameter.blocks.end(), is_inside);
    if (tied) {
      count.tied += elements;
    } else if (parameter.blocks.size() > 1) {
      count.shared += elements;
      count.shared_wide += Bytes(parameter.wide_bytes * elements);
    } else {
      of_block[static_cast<std::size_t>(block - first_block)] += elements;
      count.wide += Bytes(parameter.wide_bytes * elements);
    }
    if (parameter.experts > 0) count.held_experts += elements;
  };
  for (const plan::BlockRun& run : runs) {
    for (int block = run.first_block; block < run.end_block; ++block) {
      for (const int index : facts.parameters_of(block)) {
        const ParameterFacts& parameter = facts.parameters()[static_cast<std::size_t>(index)];
        // Each once: with the first of these blocks that uses it.
        if (*std::find_if(parameter.blocks.begin(), parameter.blocks.end(), is_inside) == block) add(block, parameter);
      }
    }
  }
  for (const std::int64_t elements : of_block) count.add_block(elements);
  for (const plan::BlockRun& run : runs) count.frozen += facts.buffer_bytes(run.first_block, run.end_block);
  return count;
}

std::int64_t split_elements(const PersistentElements& elements, std::int64_t whole, std::int64_t replicas,
                            std::int64_t holders) {
  return shard_of(elements.held - whole, elements.held_experts, replicas, holders) + whole;
}

// C14; C26: what ZeRO splits, each device of the group holds 1/replicas of; C30: masters and moments on the host.
PersistentMemory estimate_persistent_memory(const PersistentElements& elements, plan::Precision precision,
                                            int zero_stage, std::int64_t replicas, int expert, plan::Offload offload) {
  if (replicas < 2) zero_stage = 0;
  const std::int64_t holders = std::max<std::int64_t>(1, replicas / expert);
  const std::int64_t often_used = elements.tied + elements.shared;
  const std::int64_t split = split_elements(elements, often_used, replicas, holders);
  const std::int64_t updated =
      zero_stage >= 1 ? split_elements(elements, elements.tied, replicas, holders) : elements.held;
  const bool half = plan::is_mixed(precision), on_host = offload == plan::Offload::Optimizer;
  // What is computed with, and in mixed precision the float32 masters, which are state of the optimizer.
  const std::int64_t computed = half ? kHalfBytes : kFloat32Bytes;
  PersistentMemory memory;
  memory.parameters = Bytes(computed * (zero_stage >= 3 ? split : elements.held)) + elements.frozen;
  if (half && !on_host) {
    memory.parameters += Bytes(kFloat32Bytes * updated);
    // From a piece of the masters the copies are made where they are gathered.
    if (zero_stage >= 3) memory.parameters -= Bytes(computed * (split - often_used));
  }
  if (half && zero_stage >= 1) memory.parameters += elements.shared_wide;
  if (half && (zero_stage == 1 || zero_stage == 2)) memory.parameters += elements.wide;
  memory.gradients = Bytes(kFloat32Bytes * (zero_stage >= 2 ? split : elements.held));
  if (on_host)
    memory.host = Bytes(kHostBytes * updated);
  else
    memory.optimizer = Bytes(kOptimizerBytes * updated);
  memory.updated_elements = updated;
  if (zero_stage == 1) memory.late_gradients = memory.gradients - Bytes(kFloat32Bytes * elements.tied);
  if (zero_stage >= 2) memory.gathered = Bytes(kFloat32Bytes * elements.largest);
  // The block at work and the one that is fetched ahead.
  if (zero_stage >= 3) memory.gathered += Bytes(computed * (elements.largest + elements.second));
  return memory;
}

PersistentMemory estimate_persistent_memory(const ModelFacts& facts, int first_block, int end_block,
                                            plan::Precision precision) {
  return estimate_persistent_memory(count_persistent(facts, first_block, end_block), precision);
}

namespace {

MemoryNeed estimate_stage_need(const CostModel& cost, const StageWork& work) {
  const PersistentMemory persistent = persistent_of(cost, work);
  MemoryNeed need;
  plan::MemoryParts& parts = need.parts;
  parts.parameters = persistent.parameters;
  parts.optimizer = persistent.optimizer;

  const Peak peak = find_peak(cost, work, persistent.gradients, persistent.late_gradients);
  parts.gradients = peak.gradients;
  parts.activations = peak.activations;
  parts.transfers = peak.transfers;
  parts.workspace = peak.transient;

  // C17
  parts.workspace += cost.base_memory(work.device_class) + persistent.gathered + estimate_communicators(cost, work);
  parts.margin = margin_of(parts.total());
  need.host = persistent.host;
  if (work.offload == plan::Offload::Activations) need.host += peak.host;
  return need;
}

}  // namespace

plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work) {
  return estimate_stage_need(cost, work).parts;
}

Bytes communicator_buffers(const cluster::LinkClass& link) {
  const double bandwidth = link.bandwidth.value.value * std::max(1, link.sharing);
  const double channels = std::ceil(bandwidth / kChannelBandwidth.value);
  return kChannelBytes * static_cast<std::int64_t>(std::clamp<double>(channels, kFewestChannels, kMostChannels));
}

Bytes estimate_communicators(const CostModel& cost, const StageWork& work) {
  const cluster::ResourceGraph& graph = cost.resources();
  const auto buffers = [&](const cluster::LinkClass& link) {
    return cost.communicator_memory(work.device_class, link);
  };
  const std::int64_t node = cluster::locate(graph, {work.device_class, 0}).node, nodes = cluster::num_nodes(graph);
  const std::int64_t inside = (work.tensor > 1 ? 1 : 0) + (work.context > 1 ? 1 : 0);
  // Replicas, those of the same experts and of all of them, and the world; two directions with each neighbour.
  std::int64_t outside = (work.replicas * work.context > 1 ? 1 : 0) + (work.expert > 1 ? 2 : 0);
  const std::int64_t edges = 2 * num_edges(work);
  if (inside + outside + edges == 0) return Bytes(0);
  ++outside;
  const std::int64_t other = nodes == 1 ? node : node + 1 < nodes ? node + 1 : node - 1;
  const Bytes within = inside > 0 ? buffers(cluster::link_between_nodes(graph, node, node)) * inside : Bytes(0);
  const Bytes across = buffers(cluster::link_between_nodes(graph, node, other));
  return within + across * outside + Bytes(across.value / kChannelBytes.value * kEdgeChannelBytes.value) * edges;
}

Bytes estimate_stage_host_memory(const CostModel& cost, const StageWork& work) {
  return estimate_stage_need(cost, work).host;
}

Bytes margin_of(Bytes sum) {
  return Bytes(static_cast<std::int64_t>(static_cast<double>(sum.value) * kMemoryMarginFraction));
}

namespace {

/// The edges of a stage with chunks, each with all that it carries.
void add_edges(const plan::Plan& plan, int stage, StageWork& work) {
  const plan::Stage& shape = plan.stages[static_cast<std::size_t>(stage)];
  std::map<int, StageWork::EdgeWork> edges_in, edges_out;  // by edge
  const auto add = [&](std::map<int, StageWork::EdgeWork>& edges, const plan::Action& action, int cut) {
    const auto edge = plan::edge_of(plan, stage, action);
    if (!edge) return;
    StageWork::EdgeWork& entry = edges[edge->index];
    entry.cuts.push_back(cut);
    entry.chunks.push_back(action.chunk);
    const std::int64_t messages = plan.batch.count * static_cast<std::int64_t>(entry.cuts.size());
    entry.credits = static_cast<int>(std::min<std::int64_t>(plan::credits_of(plan, *edge), messages));
  };
  for (int chunk = 0; chunk < plan::num_chunks(shape); ++chunk) {
    const plan::BlockRun run = plan::run_of(shape, chunk);
    add(edges_in, {plan::ActionKind::ReceiveActivation, 0, -1, -1, -1, chunk}, run.first_block);
    add(edges_out, {plan::ActionKind::SendActivation, 0, -1, -1, -1, chunk}, run.end_block);
  }
  for (auto& [index, edge] : edges_in) work.edges_in.push_back(std::move(edge));
  for (auto& [index, edge] : edges_out) work.edges_out.push_back(std::move(edge));
}

/// C16: samples that travel to or from a stage in pieces that are no run of this device's memory, where others are.
std::int64_t apart_samples(const plan::Plan& plan, int stage, int replica, int other) {
  if (other < 0 || other >= static_cast<int>(plan.stages.size())) return 0;
  const plan::Stage &here = plan.stages[static_cast<std::size_t>(stage)],
                    &there = plan.stages[static_cast<std::size_t>(other)];
  const plan::Replica& own = here.replicas[static_cast<std::size_t>(replica)];
  const std::int64_t begin = plan::first_sample(here, static_cast<std::size_t>(replica)), end = begin + own.samples;
  std::int64_t apart = 0, first = 0;
  for (const plan::Replica& peer : there.replicas) {
    const std::int64_t common = std::min(end, first + peer.samples) - std::max(begin, first);
    first += peer.samples;
    // What has all of this device's rows sends and takes them in one run.
    const bool has_all = own.tensor % peer.tensor == 0 && own.context % peer.context == 0;
    if (common > 0 && !has_all) apart += common;
  }
  return apart < own.samples ? apart : 0;
}

StageWork make_work(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
  const plan::Stage& shape = plan.stages[static_cast<std::size_t>(stage)];
  const plan::Replica& place = shape.replicas[static_cast<std::size_t>(replica)];
  const int num_stages = static_cast<int>(plan.stages.size());
  StageWork work;
  work.first_block = shape.first_block;
  work.end_block = shape.end_block;
  work.device_class = place.devices.front().device_class;
  work.samples = place.samples;
  work.precision = plan.precision;
  work.recompute = shape.recompute;
  work.list = list_of(plan, stage, replica);
  work.chunks = shape.chunks;
  if (!shape.chunks.empty()) add_edges(plan, stage, work);
  work.receive_credits = static_cast<int>(std::min<std::int64_t>(plan.receive_credits, plan.batch.count));
  work.first_stage = stage == 0;
  work.last_stage = stage + 1 == num_stages;
  work.tensor = place.tensor;
  work.apart_in = apart_samples(plan, stage, replica, stage - 1);
  work.apart_out = apart_samples(plan, stage, replica, stage + 1);
  work.zero_stage = plan::zero_of(shape);
  work.replicas = static_cast<std::int64_t>(shape.replicas.size());
  work.context = place.context;
  work.expert = place.expert;
  work.expert_samples = plan::expert_samples(shape, replica);
  work.expert_index = plan::expert_place(shape, replica).index;
  work.offload = shape.offload;
  if (work.zero_stage == 1 && plan.batch.count == 1 && shape.chunks.empty() && work.replicas * work.context > 1) {
    int end = shape.end_block;
    for (const int start : shape.bucket_starts) {
      const PersistentElements bucket =
          count_persistent(cost.facts(), {{start, end}}, work.tensor, work.expert, work.expert_index);
      work.reduced_at_once = std::max(work.reduced_at_once, bucket.held);
      end = start;
    }
  }
  return work;
}

}  // namespace

plan::MemoryParts estimate_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
  return estimate_stage_memory(cost, make_work(cost, plan, stage, replica));
}

MemoryNeed estimate_memory_need(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
  return estimate_stage_need(cost, make_work(cost, plan, stage, replica));
}

Bytes estimate_host_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
  return estimate_stage_host_memory(cost, make_work(cost, plan, stage, replica));
}

}  // namespace coxswain::cost_model
