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

bool uses(const ParameterFacts& parameter, int first_block, int end_block) {
  const auto at = std::lower_bound(parameter.blocks.begin(), parameter.blocks.end(), first_block);
  return at != parameter.blocks.end() && *at < end_block;
}

}  // namespace

// C14
PersistentMemory estimate_persistent_memory(const ModelFacts& facts, int first_block, int end_block,
                                            plan::Precision precision) {
  PersistentMemory memory;
  for (const ParameterFacts& parameter : facts.parameters()) {
    if (!uses(parameter, first_block, end_block)) continue;
    if (!parameter.trainable) {
      memory.parameters += size_of(parameter.dtype) * parameter.elements;
      continue;
    }
    // float32 masters, and under bfloat16 the copy that is computed with.
    const std::int64_t bytes = kFloat32Bytes + (precision == plan::Precision::BFloat16 ? kBFloat16Bytes : 0);
    memory.parameters += Bytes(bytes * parameter.elements);
    memory.gradients += Bytes(kFloat32Bytes * parameter.elements);
    memory.held_elements += parameter.elements;
    if (parameter.blocks.front() < first_block) continue;  // a tied copy: updated by its owner
    memory.optimizer += Bytes(kOptimizerBytes * parameter.elements);
    memory.owned_elements += parameter.elements;
  }
  memory.parameters += facts.buffer_bytes(first_block, end_block);
  return memory;
}

plan::MemoryParts estimate_stage_memory(const CostModel& cost, const StageWork& work) {
  const ModelFacts& facts = cost.facts();
  const PersistentMemory persistent =
      estimate_persistent_memory(facts, work.first_block, work.end_block, work.precision);
  plan::MemoryParts parts;
  parts.parameters = persistent.parameters;
  parts.gradients = persistent.gradients;
  parts.optimizer = persistent.optimizer;

  // C15: every micro-batch in flight keeps what backward needs, or a block's inputs where it recomputes; while a block
  // recomputes, what it would have kept is there once more.
  Bytes kept{0}, replayed{0}, shared{0};
  for (int block = work.first_block; block < work.end_block; ++block) {
    const BlockTime time = cost.estimate_block({block, work.device_class, work.samples, work.precision});
    if (work.recompute[static_cast<std::size_t>(block - work.first_block)] == plan::Recompute::Full) {
      kept += facts.activation_bytes(block, work.samples, work.precision);
      replayed = std::max(replayed, time.saved);
    } else {
      kept += time.saved;
    }
    parts.workspace = std::max(parts.workspace, time.transient);
    if (!time.measured) shared = std::max(shared, facts.totals(block, work.samples).shared_bytes);
  }
  parts.activations = kept * work.in_flight + replayed + shared;

  // C16: a receive buffer per credit on each edge, a send buffer each while its message is under way.
  if (!work.first_stage) {
    parts.transfers += facts.activation_bytes(work.first_block, work.samples, work.precision) * work.receive_credits;
    parts.transfers += facts.gradient_bytes(work.first_block, work.samples, work.precision);
  }
  if (!work.last_stage) {
    parts.transfers += facts.gradient_bytes(work.end_block, work.samples, work.precision) * work.receive_credits;
    parts.transfers += facts.activation_bytes(work.end_block, work.samples, work.precision);
  }

  // C17
  parts.workspace += cost.base_memory(work.device_class);
  parts.margin = margin_of(parts.total());
  return parts;
}

Bytes margin_of(Bytes sum) {
  return Bytes(static_cast<std::int64_t>(static_cast<double>(sum.value) * kMemoryMarginFraction));
}

int peak_in_flight(plan::ScheduleKind kind, int stage, int num_stages, std::int64_t num_micro_batches) {
  int held = 0, peak = 0;
  for (const plan::Action& action : plan::make_schedule(kind, stage, num_stages, static_cast<int>(num_micro_batches))) {
    if (action.kind == plan::ActionKind::Forward) peak = std::max(peak, ++held);
    if (action.kind == plan::ActionKind::Backward || action.kind == plan::ActionKind::BackwardWeight) --held;
  }
  return peak;
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
  work.in_flight = peak_in_flight(plan.schedule, stage, num_stages, plan.batch.count);
  work.receive_credits = static_cast<int>(std::min<std::int64_t>(plan.receive_credits, plan.batch.count));
  work.first_stage = stage == 0;
  work.last_stage = stage + 1 == num_stages;
  return estimate_stage_memory(cost, work);
}

}  // namespace coxswain::cost_model
