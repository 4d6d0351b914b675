#include "cost_model/memory.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "common/ensure.h"
#include "cost_model/mesh_facts.h"
#include "plan/program.h"

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kFloat32Bytes = 4;
constexpr std::int64_t kHalfBytes = 2;
/// Two float32 moments of AdamW.
constexpr std::int64_t kOptimizerBytes = 8;

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

/// What a micro-batch keeps of a chunk, before its backward began and between I and W.
struct Held {
  Bytes before{0}, after{0};
};

/// C15: the most that is held at once along a list.
Bytes peak_of(const std::vector<plan::Action>& list, const std::vector<plan::BlockRun>& runs,
              const std::vector<Held>& held) {
  Bytes now{0}, peak{0};
  for (const plan::Action& action : list) {
    if (action.micro_batch < 0) continue;
    const auto chunk = static_cast<std::size_t>(action.chunk);
    // A backward in parts ends with the lowest blocks; a bare schedule has no blocks.
    const bool ends = action.first_block < 0 || action.first_block == runs[chunk].first_block;
    // A pass in parts counts when it begins, as a whole one does.
    const bool begins_forward = action.first_block < 0 || action.first_block == runs[chunk].first_block;
    const bool begins_backward = action.first_block < 0 || action.end_block == runs[chunk].end_block;
    if (action.kind == plan::ActionKind::Forward && begins_forward) now += held[chunk].before;
    if (action.kind == plan::ActionKind::BackwardInput && begins_backward)
      now += held[chunk].after - held[chunk].before;
    peak = std::max(peak, now);
    if (action.kind == plan::ActionKind::Backward && ends) now -= held[chunk].before;
    if (action.kind == plan::ActionKind::BackwardWeight && ends) now -= held[chunk].after;
  }
  return peak;
}

/// Master, two moments, and the gradient as it comes in.
constexpr std::int64_t kHostBytes = 16;
/// C34: the block at work and the one whose tensors are on their way.
constexpr std::int64_t kBlocksOnDevice = 2;

/// C25, C29: the stream between blocks is split along the sequence.
Bytes split(Bytes bytes, int parts) { return Bytes((bytes.value + parts - 1) / parts); }

std::vector<plan::BlockRun> runs_of(const StageWork& work) {
  std::vector<plan::BlockRun> runs{{work.first_block, work.end_block}};
  runs.insert(runs.end(), work.chunks.begin(), work.chunks.end());
  return runs;
}

/// C15: bytes between forward and backward.
struct Kept {
  std::vector<Held> held;  // of one micro-batch, by chunk
  Bytes largest{0};        // of a block
  Bytes replayed{0};       // there once more while a block is recomputed
  Bytes shared{0}, transient{0};
};

Kept count_kept(const CostModel& cost, const StageWork& work) {
  const ModelFacts& facts = cost.facts();
  Kept kept;
  std::size_t position = 0;
  for (const plan::BlockRun& run : runs_of(work)) {
    kept.held.emplace_back();
    for (int block = run.first_block; block < run.end_block; ++block, ++position) {
      const BlockWork here{block,       work.device_class, work.samples, work.precision,
                           work.tensor, work.context,      work.expert,  work.recompute[position]};
      const BlockTime time = cost.estimate_block(here);
      const Bytes bytes = kept_bytes(facts, here, time);
      kept.held.back().before += bytes;
      kept.held.back().after += time.saved;
      kept.largest = std::max(kept.largest, bytes);
      if (here.recompute == plan::Recompute::Full) kept.replayed = std::max(kept.replayed, time.saved);
      if (here.recompute == plan::Recompute::Selective)
        kept.replayed = std::max(kept.replayed, time.saved - time.selective);
      kept.transient = std::max(kept.transient, time.transient);
      if (!time.measured) kept.shared = std::max(kept.shared, shared_bytes(facts, here));
    }
  }
  // Between I and W all that was recomputed stays.
  const bool splits = std::any_of(work.list.begin(), work.list.end(), [](const plan::Action& action) {
    return action.kind == plan::ActionKind::BackwardWeight;
  });
  if (splits) kept.replayed = Bytes(0);
  return kept;
}

/// Of all micro-batches in flight.
Bytes sum_in_flight(const StageWork& work, const Kept& kept) {
  return work.list.empty() ? kept.held.front().before * work.in_flight : peak_of(work.list, runs_of(work), kept.held);
}

/// Without chunks from and to the neighbours.
std::vector<StageWork::EdgeWork> edges_in_of(const StageWork& work) {
  if (!work.chunks.empty() || work.first_stage) return work.edges_in;
  return {{{work.first_block}, work.receive_credits}};
}

std::vector<StageWork::EdgeWork> edges_out_of(const StageWork& work) {
  if (!work.chunks.empty() || work.last_stage) return work.edges_out;
  return {{{work.end_block}, work.receive_credits}};
}

PersistentMemory persistent_of(const CostModel& cost, const StageWork& work) {
  PersistentMemory memory =
      estimate_persistent_memory(count_persistent(cost.facts(), runs_of(work), work.tensor, work.expert),
                                 work.precision, work.zero_stage, work.replicas * work.context, work.expert,
                                 work.offload);
  if (work.reduced_at_once > 0) {  // C26
    memory.gradients = Bytes(kFloat32Bytes * memory.updated_elements);
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
  return split(facts.activation_bytes(work.block, work.samples, work.precision), work.tensor * work.context);
}

Bytes shared_bytes(const ModelFacts& facts, const BlockWork& work) {
  if (const MeshFacts* mesh = facts.mesh(work.block, work.tensor, work.context))
    return mesh->local().totals(plan::kBlock, work.samples).shared_bytes;
  return split(facts.totals(work.block, work.samples).shared_bytes, work.tensor * work.context);
}

std::int64_t shard_of(std::int64_t all, std::int64_t experts, std::int64_t replicas, std::int64_t holders) {
  if (holders == replicas) return (all + replicas - 1) / replicas;
  return (all - experts + replicas - 1) / replicas + (experts + holders - 1) / holders;
}

PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block, int tensor, int expert) {
  return count_persistent(facts, {{first_block, end_block}}, tensor, expert);
}

PersistentElements count_persistent(const ModelFacts& facts, const std::vector<plan::BlockRun>& runs, int tensor,
                                    int expert) {
  PersistentElements count;
  const int first_block = runs.front().first_block;
  std::vector<std::int64_t> of_block(static_cast<std::size_t>(runs.back().end_block - first_block), 0);
  const auto is_inside = [&](int block) {
    return std::any_of(runs.begin(), runs.end(), [block](const plan::BlockRun& run) {
      return run.first_block <= block && block < run.end_block;
    });
  };
  for (const ParameterFacts& parameter : facts.parameters()) {
    const auto at = std::find_if(parameter.blocks.begin(), parameter.blocks.end(), is_inside);
    if (at == parameter.blocks.end()) continue;
    const std::int64_t elements = parameter.elements_at(tensor, expert);
    if (!parameter.trainable) {
      count.frozen += size_of(parameter.dtype) * elements;
      continue;
    }
    count.held += elements;
    const bool tied = !std::all_of(parameter.blocks.begin(), parameter.blocks.end(), is_inside);
    if (tied) {
      count.tied += elements;
    } else if (parameter.blocks.size() > 1) {
      count.shared += elements;
      count.shared_wide += Bytes(parameter.wide_bytes * elements);
    } else {
      of_block[static_cast<std::size_t>(*at - first_block)] += elements;
      count.wide += Bytes(parameter.wide_bytes * elements);
    }
    if (parameter.experts > 0) count.held_experts += elements;
  }
  for (const std::int64_t elements : of_block) count.largest = std::max(count.largest, elements);
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
  memory.held_elements = elements.held;
  // The block at work and the one that is fetched ahead.
  if (zero_stage >= 2) memory.gathered = Bytes(kFloat32Bytes * elements.largest);
  if (zero_stage >= 3) memory.gathered += Bytes(2 * computed * elements.largest);
  return memory;
}

PersistentMemory estimate_persistent_memory(const ModelFacts& facts, int first_block, int end_block,
                                            plan::Precision precision) {
  return estimate_persistent_memory(count_persistent(facts, first_block, end_block), precision);
}

plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work) {
  const ModelFacts& facts = cost.facts();
  const PersistentMemory persistent = persistent_of(cost, work);
  plan::MemoryParts parts;
  parts.parameters = persistent.parameters;
  parts.gradients = persistent.gradients;
  parts.optimizer = persistent.optimizer;

  // C15: every micro-batch in flight keeps what backward needs, or a block's inputs where it recomputes; while a block
  // recomputes, what it would have kept is there once more, until W where that comes later. C34: of what goes to the
  // host, two blocks' are here.
  const Kept kept = count_kept(cost, work);
  Bytes in_flight = sum_in_flight(work, kept);
  if (work.offload == plan::Offload::Activations) in_flight = std::min(in_flight, kept.largest * kBlocksOnDevice);
  parts.activations = in_flight + kept.replayed + kept.shared;
  parts.workspace = kept.transient;

  // C16: a receive buffer per credit on each edge, a send buffer each while its message is under way.
  const int parts_of_cut = work.tensor * work.context;
  const auto buffers = [&](const StageWork::EdgeWork& edge) {
    Bytes activation{0}, gradient{0};
    for (const int cut : edge.cuts) {
      activation = std::max(activation, split(facts.activation_bytes(cut, work.samples, work.precision), parts_of_cut));
      gradient = std::max(gradient, split(facts.gradient_bytes(cut, work.samples, work.precision), parts_of_cut));
    }
    return std::pair{activation, gradient};
  };
  for (const StageWork::EdgeWork& edge : edges_in_of(work)) {
    const auto [activation, gradient] = buffers(edge);
    parts.transfers += activation * edge.credits + gradient;
  }
  for (const StageWork::EdgeWork& edge : edges_out_of(work)) {
    const auto [activation, gradient] = buffers(edge);
    parts.transfers += gradient * edge.credits + activation;
  }

  // C17
  parts.workspace += cost.base_memory(work.device_class) + persistent.gathered + estimate_communicators(cost, work);
  parts.margin = margin_of(parts.total());
  return parts;
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
  const auto edges = 2 * static_cast<std::int64_t>(edges_in_of(work).size() + edges_out_of(work).size());
  if (inside + outside + edges == 0) return Bytes(0);
  ++outside;
  const std::int64_t other = nodes == 1 ? node : node + 1 < nodes ? node + 1 : node - 1;
  const Bytes within = inside > 0 ? buffers(cluster::link_between_nodes(graph, node, node)) * inside : Bytes(0);
  const Bytes across = buffers(cluster::link_between_nodes(graph, node, other));
  return within + across * outside + Bytes(across.value / kChannelBytes.value * kEdgeChannelBytes.value) * edges;
}

Bytes estimate_stage_host_memory(const CostModel& cost, const StageWork& work) {
  Bytes bytes = persistent_of(cost, work).host;
  if (work.offload == plan::Offload::Activations) bytes += sum_in_flight(work, count_kept(cost, work));
  return bytes;
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

}  // namespace

plan::MemoryParts estimate_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
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
  work.zero_stage = shape.zero_stage;
  work.replicas = static_cast<std::int64_t>(shape.replicas.size());
  work.context = place.context;
  work.expert = place.expert;
  work.offload = shape.offload;
  if (shape.zero_stage == 1 && plan.batch.count == 1 && shape.chunks.empty() && work.replicas * work.context > 1) {
    int end = shape.end_block;
    for (const int start : shape.bucket_starts) {
      const PersistentElements bucket = count_persistent(cost.facts(), start, end, work.tensor, work.expert);
      work.reduced_at_once = std::max(work.reduced_at_once, bucket.held);
      end = start;
    }
  }
  return estimate_stage_memory(cost, work);
}

}  // namespace coxswain::cost_model
