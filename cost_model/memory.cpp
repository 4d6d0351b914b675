#include "cost_model/memory.h"

#include <algorithm>
#include <map>

#include "common/ensure.h"
#include "plan/program.h"

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kFloat32Bytes = 4;
constexpr std::int64_t kBFloat16Bytes = 2;
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
    if (action.kind == plan::ActionKind::Forward) now += held[chunk].before;
    if (action.kind == plan::ActionKind::BackwardInput) now += held[chunk].after - held[chunk].before;
    peak = std::max(peak, now);
    if (action.kind == plan::ActionKind::Backward && ends) now -= held[chunk].before;
    if (action.kind == plan::ActionKind::BackwardWeight && ends) now -= held[chunk].after;
  }
  return peak;
}

/// C25: the stream between blocks is split along the sequence.
Bytes split(Bytes bytes, int tensor) { return Bytes((bytes.value + tensor - 1) / tensor); }

}  // namespace

PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block, int tensor) {
  return count_persistent(facts, {{first_block, end_block}}, tensor);
}

PersistentElements count_persistent(const ModelFacts& facts, const std::vector<plan::BlockRun>& runs, int tensor) {
  PersistentElements count;
  std::vector<std::int64_t> of_block(static_cast<std::size_t>(facts.num_blocks()), 0);
  const auto is_inside = [&](int block) {
    return std::any_of(runs.begin(), runs.end(), [block](const plan::BlockRun& run) {
      return run.first_block <= block && block < run.end_block;
    });
  };
  for (const ParameterFacts& parameter : facts.parameters()) {
    const auto at = std::find_if(parameter.blocks.begin(), parameter.blocks.end(), is_inside);
    if (at == parameter.blocks.end()) continue;
    const std::int64_t elements = parameter.elements_at(tensor);
    if (!parameter.trainable) {
      count.frozen += size_of(parameter.dtype) * elements;
      continue;
    }
    count.held += elements;
    of_block[static_cast<std::size_t>(*at)] += elements;
    // A tied copy is updated by its owner.
    if (at == parameter.blocks.begin()) count.owned += elements;
  }
  for (const std::int64_t elements : of_block) count.largest = std::max(count.largest, elements);
  for (const plan::BlockRun& run : runs) count.frozen += facts.buffer_bytes(run.first_block, run.end_block);
  return count;
}

// C14; C26: what ZeRO splits, each device of the group holds 1/replicas of.
PersistentMemory estimate_persistent_memory(const PersistentElements& elements, plan::Precision precision,
                                            int zero_stage, std::int64_t replicas) {
  const auto part = [replicas](std::int64_t whole, bool split) {
    return split ? (whole + replicas - 1) / replicas : whole;
  };
  const bool half = precision == plan::Precision::BFloat16;
  // What is computed with, and under bfloat16 the float32 masters, which are state of the optimizer.
  const std::int64_t computed = half ? kBFloat16Bytes : kFloat32Bytes;
  PersistentMemory memory;
  memory.parameters = Bytes(computed * part(elements.held, zero_stage >= 3)) + elements.frozen;
  if (half) memory.parameters += Bytes(kFloat32Bytes * part(elements.held, zero_stage >= 1));
  memory.gradients = Bytes(kFloat32Bytes * part(elements.held, zero_stage >= 2));
  memory.optimizer = Bytes(kOptimizerBytes * part(elements.owned, zero_stage >= 1));
  memory.owned_elements = part(elements.owned, zero_stage >= 1);
  memory.held_elements = elements.held;
  if (replicas > 1 && zero_stage >= 2) memory.gathered = Bytes(kFloat32Bytes * elements.largest);
  // The block at work and the one that is fetched ahead.
  if (replicas > 1 && zero_stage >= 3) memory.gathered += Bytes(2 * computed * elements.largest);
  return memory;
}

PersistentMemory estimate_persistent_memory(const ModelFacts& facts, int first_block, int end_block,
                                            plan::Precision precision) {
  return estimate_persistent_memory(count_persistent(facts, first_block, end_block), precision);
}

plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work) {
  const ModelFacts& facts = cost.facts();
  std::vector<plan::BlockRun> runs{{work.first_block, work.end_block}};
  runs.insert(runs.end(), work.chunks.begin(), work.chunks.end());
  const PersistentMemory persistent = estimate_persistent_memory(count_persistent(facts, runs, work.tensor),
                                                                 work.precision, work.zero_stage, work.replicas);
  plan::MemoryParts parts;
  parts.parameters = persistent.parameters;
  parts.gradients = persistent.gradients;
  parts.optimizer = persistent.optimizer;

  // C15: every micro-batch in flight keeps what backward needs, or a block's inputs where it recomputes; while a block
  // recomputes, what it would have kept is there once more, until W where that comes later.
  Bytes replayed{0}, shared{0};
  std::vector<Held> held;
  std::size_t position = 0;
  for (const plan::BlockRun& run : runs) {
    Held of_run;
    for (int block = run.first_block; block < run.end_block; ++block, ++position) {
      const BlockTime time = cost.estimate_block({block, work.device_class, work.samples, work.precision, work.tensor});
      of_run.after += time.saved;
      if (work.recompute[position] == plan::Recompute::Full) {
        of_run.before += split(facts.activation_bytes(block, work.samples, work.precision), work.tensor);
        replayed = std::max(replayed, time.saved);
      } else {
        of_run.before += time.saved;
      }
      parts.workspace = std::max(parts.workspace, time.transient);
      if (!time.measured) shared = std::max(shared, split(facts.totals(block, work.samples).shared_bytes, work.tensor));
    }
    held.push_back(of_run);
  }
  const bool splits = std::any_of(work.list.begin(), work.list.end(), [](const plan::Action& action) {
    return action.kind == plan::ActionKind::BackwardWeight;
  });
  if (splits) replayed = Bytes(0);  // held from I to W
  parts.activations =
      (work.list.empty() ? held.front().before * work.in_flight : peak_of(work.list, runs, held)) + replayed + shared;

  // C16: a receive buffer per credit on each edge, a send buffer each while its message is under way.
  const auto largest = [&](const std::vector<int>& cuts) {
    Bytes activation{0}, gradient{0};
    for (const int cut : cuts) {
      activation = std::max(activation, split(facts.activation_bytes(cut, work.samples, work.precision), work.tensor));
      gradient = std::max(gradient, split(facts.gradient_bytes(cut, work.samples, work.precision), work.tensor));
    }
    return std::pair{activation, gradient};
  };
  for (const StageWork::EdgeWork& edge : work.edges_in) {
    const auto [activation, gradient] = largest(edge.cuts);
    parts.transfers += activation * edge.credits + gradient;
  }
  for (const StageWork::EdgeWork& edge : work.edges_out) {
    const auto [activation, gradient] = largest(edge.cuts);
    parts.transfers += gradient * edge.credits + activation;
  }

  // C17
  parts.workspace += cost.base_memory(work.device_class) + persistent.gathered;
  parts.margin = margin_of(parts.total());
  return parts;
}

Bytes margin_of(Bytes sum) {
  return Bytes(static_cast<std::int64_t>(static_cast<double>(sum.value) * kMemoryMarginFraction));
}

plan::MemoryParts estimate_memory(const CostModel& cost, const plan::Plan& plan, int stage, int replica) {
  const plan::Stage& shape = plan.stages[static_cast<std::size_t>(stage)];
  const plan::Replica& place = shape.replicas[static_cast<std::size_t>(replica)];
  StageWork work;
  work.first_block = shape.first_block;
  work.end_block = shape.end_block;
  work.device_class = place.devices.front().device_class;
  work.samples = place.samples;
  work.precision = plan.precision;
  work.recompute = shape.recompute;
  work.chunks = shape.chunks;
  work.list = list_of(plan, stage, replica);
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
    const plan::Action receive{plan::ActionKind::ReceiveActivation, 0, -1, -1, -1, chunk};
    const plan::Action send{plan::ActionKind::SendActivation, 0, -1, -1, -1, chunk};
    add(edges_in, receive, run.first_block);
    add(edges_out, send, run.end_block);
  }
  for (auto& [index, edge] : edges_in) work.edges_in.push_back(std::move(edge));
  for (auto& [index, edge] : edges_out) work.edges_out.push_back(std::move(edge));
  work.tensor = place.tensor;
  work.zero_stage = shape.zero_stage;
  work.replicas = static_cast<std::int64_t>(shape.replicas.size());
  return estimate_stage_memory(cost, work);
}

}  // namespace coxswain::cost_model
