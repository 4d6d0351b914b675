#include "cost_model/memory.h"

#include <algorithm>

#include "common/ensure.h"
#include "plan/program.h"

namespace coxswain::cost_model {
namespace {

constexpr std::int64_t kFloat32Bytes = 4;
constexpr std::int64_t kBFloat16Bytes = 2;
/// Two float32 moments of AdamW.
constexpr std::int64_t kOptimizerBytes = 8;

/// C15: most micro-batches that the list of the replica's role holds at once, from F to B or W. Without a list: of the
/// schedule that the plan names.
int count_in_flight(const plan::Plan& plan, int stage, int replica) {
  for (const plan::Role& role : plan.roles) {
    if (role.stage != stage || std::find(role.replicas.begin(), role.replicas.end(), replica) == role.replicas.end())
      continue;
    const int first_block = plan.stages[static_cast<std::size_t>(stage)].first_block;
    int held = 0, peak = 0;
    for (const plan::Action& action : role.actions) {
      if (action.kind == plan::ActionKind::Forward) peak = std::max(peak, ++held);
      const bool releases = action.kind == plan::ActionKind::Backward || action.kind == plan::ActionKind::BackwardWeight;
      if (releases && action.first_block == first_block) --held;  // a backward in parts ends with the lowest blocks
    }
    return peak;
  }
  return peak_in_flight(plan.schedule, stage, static_cast<int>(plan.stages.size()), plan.batch.count);
}

/// C25: the stream between blocks is split along the sequence.
Bytes split(Bytes bytes, int tensor) { return Bytes((bytes.value + tensor - 1) / tensor); }

}  // namespace

PersistentElements count_persistent(const ModelFacts& facts, int first_block, int end_block, int tensor) {
  PersistentElements count;
  std::vector<std::int64_t> of_block(static_cast<std::size_t>(end_block - first_block), 0);
  for (const ParameterFacts& parameter : facts.parameters()) {
    const auto at = std::lower_bound(parameter.blocks.begin(), parameter.blocks.end(), first_block);
    if (at == parameter.blocks.end() || *at >= end_block) continue;
    const std::int64_t elements = parameter.elements_at(tensor);
    if (!parameter.trainable) {
      count.frozen += size_of(parameter.dtype) * elements;
      continue;
    }
    count.held += elements;
    of_block[static_cast<std::size_t>(*at - first_block)] += elements;
    // A tied copy is updated by its owner.
    if (parameter.blocks.front() >= first_block) count.owned += elements;
  }
  for (const std::int64_t elements : of_block) count.largest = std::max(count.largest, elements);
  count.frozen += facts.buffer_bytes(first_block, end_block);
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
  const PersistentMemory persistent =
      estimate_persistent_memory(count_persistent(facts, work.first_block, work.end_block, work.tensor), work.precision,
                                 work.zero_stage, work.replicas);
  plan::MemoryParts parts;
  parts.parameters = persistent.parameters;
  parts.gradients = persistent.gradients;
  parts.optimizer = persistent.optimizer;

  // C15: every micro-batch in flight keeps what backward needs, or a block's inputs where it recomputes; while a block
  // recomputes, what it would have kept is there once more.
  Bytes kept{0}, replayed{0}, shared{0};
  for (int block = work.first_block; block < work.end_block; ++block) {
    const BlockTime time = cost.estimate_block({block, work.device_class, work.samples, work.precision, work.tensor});
    if (work.recompute[static_cast<std::size_t>(block - work.first_block)] == plan::Recompute::Full) {
      kept += split(facts.activation_bytes(block, work.samples, work.precision), work.tensor);
      replayed = std::max(replayed, time.saved);
    } else {
      kept += time.saved;
    }
    parts.workspace = std::max(parts.workspace, time.transient);
    if (!time.measured) shared = std::max(shared, split(facts.totals(block, work.samples).shared_bytes, work.tensor));
  }
  parts.activations = kept * work.in_flight + replayed + shared;

  // C16: a receive buffer per credit on each edge, a send buffer each while its message is under way.
  const auto edge = [&](int cut) {
    return std::pair{split(facts.activation_bytes(cut, work.samples, work.precision), work.tensor),
                     split(facts.gradient_bytes(cut, work.samples, work.precision), work.tensor)};
  };
  if (!work.first_stage) {
    const auto [activation, gradient] = edge(work.first_block);
    parts.transfers += activation * work.receive_credits + gradient;
  }
  if (!work.last_stage) {
    const auto [activation, gradient] = edge(work.end_block);
    parts.transfers += gradient * work.receive_credits + activation;
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
  const int num_stages = static_cast<int>(plan.stages.size());
  StageWork work;
  work.first_block = shape.first_block;
  work.end_block = shape.end_block;
  work.device_class = place.devices.front().device_class;
  work.samples = place.samples;
  work.precision = plan.precision;
  work.recompute = shape.recompute;
  work.in_flight = count_in_flight(plan, stage, replica);
  work.receive_credits = static_cast<int>(std::min<std::int64_t>(plan.receive_credits, plan.batch.count));
  work.first_stage = stage == 0;
  work.last_stage = stage + 1 == num_stages;
  work.tensor = place.tensor;
  work.zero_stage = shape.zero_stage;
  work.replicas = static_cast<std::int64_t>(shape.replicas.size());
  return estimate_stage_memory(cost, work);
}

}  // namespace coxswain::cost_model
