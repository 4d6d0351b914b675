#include "cost_model/action_times.h"

#include <algorithm>

#include "common/ensure.h"
#include "cost_model/memory.h"
#include "cost_model/mesh_times.h"
#include "plan/experts.h"
#include "plan/zero.h"

namespace coxswain::cost_model {
namespace {

/// Whether the block after `last`, which recomputes as much, takes what that one does on the same mesh.
bool repeats_last(const CostModel& cost, const BlockWork& last, const Mesh& mesh) {
  const int block = last.block + 1;
  const auto stream = [&](int cut) { return cost.facts().activation_bytes(cut, last.samples, last.precision); };
  if (!costs_like_previous(cost, block, stream)) return false;
  if (mesh.zero_stage < 2) return true;
  // C26: what is gathered differs where other blocks use a parameter too.
  const auto count = [&](int one) { return count_persistent(cost.facts(), one, one + 1, last.tensor, last.expert); };
  const PersistentElements before = count(last.block), here = count(block);
  return before.held == here.held && before.held_experts == here.held_experts && before.tied == here.tied;
}

}  // namespace

ActionTimes::ActionTimes(const CostModel& cost, const plan::Plan& plan, const plan::Role& role,
                         const std::vector<plan::TiedParameter>& tied)
    : cost_(cost), plan_(plan), stage_(plan.stages[static_cast<std::size_t>(role.stage)]), tied_(tied) {
  const plan::Replica& replica = stage_.replicas[static_cast<std::size_t>(role.replicas.front())];
  device_class_ = replica.devices.front().device_class;
  overhead_ = to_ticks(cost.estimate_action_overhead(device_class_));
  const Mesh mesh = make_mesh(stage_, role.replicas.front());
  const std::vector<plan::BlockRun> runs = plan::runs_of(stage_);
  BlockWork work{0,
                 device_class_,
                 replica.samples,
                 plan.precision,
                 replica.tensor,
                 replica.context,
                 replica.expert,
                 plan::Recompute::None,
                 plan::expert_samples(stage_, role.replicas.front()),
                 plan::expert_place(stage_, role.replicas.front()).index};
  MeshTicks time;
  for (const plan::BlockRun& run : runs) {
    for (int block = run.first_block; block < run.end_block; ++block) {
      const plan::Recompute recompute = stage_.recompute[at(block)];
      const bool repeats = block > run.first_block && recompute == work.recompute && repeats_last(cost, work, mesh);
      work.block = block;
      work.recompute = recompute;
      if (!repeats) time = estimate_block_on_mesh(cost, work, mesh);
      forward_.push_back(time.forward);
      backward_.push_back(time.backward);
      input_.push_back(time.input);
      weight_.push_back(time.weight);
      recompute_.push_back(time.recompute);
    }
  }
  const PersistentElements elements = count_persistent(cost.facts(), runs, replica.tensor, replica.expert);
  optimizer_ = estimate_update_on_mesh(cost, elements, plan.precision, mesh);
  reused_ = elements.shared;

  gradients_.resize(forward_.size(), 0);
  const auto shards = static_cast<std::int64_t>(mesh.replica_group.size());
  if (!reduces_buckets(plan::zero_of(stage_))) return;
  for (const plan::BlockRun& run : runs) {
    for (int block = run.first_block; block < run.end_block; ++block) add_gradients(block, replica, shards);
  }
}

/// Of parameters that this block is the first to use, and no other stage.
void ActionTimes::add_gradients(int block, const plan::Replica& replica, std::int64_t shards) {
  for (const int index : cost_.facts().parameters_of(block)) {
    const ParameterFacts& parameter = cost_.facts().parameters()[static_cast<std::size_t>(index)];
    if (!parameter.trainable || parameter.blocks.front() != block) continue;
    const bool inside = std::all_of(parameter.blocks.begin(), parameter.blocks.end(),
                                    [&](int user) { return plan::position_of(stage_, user) >= 0; });
    if (!inside) continue;
    const std::int64_t elements = parameter.elements_at(replica.tensor, replica.expert);
    const bool experts = parameter.experts > 0;
    gradients_[at(block)] += reduced_elements(experts ? 0 : elements, experts ? elements : 0, shards, replica.expert);
  }
}

ComputeTicks ActionTimes::backward_time(const plan::Action& action, const std::vector<Ticks>& times) const {
  ComputeTicks ticks;
  ticks.backward = overhead_of(action);
  for (int block = action.first_block; block < action.end_block; ++block) {
    const std::size_t i = at(block);
    ticks.backward += times[i];
    ticks.recompute += recompute_[i];
  }
  return ticks;
}

Ticks ActionTimes::overhead_of(const plan::Action& action) const {
  const plan::BlockRun run = plan::run_of(stage_, action.chunk);
  const bool begins = action.kind == plan::ActionKind::Forward ? action.first_block == run.first_block
                                                               : action.end_block == run.end_block;
  return begins || reduces_buckets(plan::zero_of(stage_)) ? overhead_ : 0;
}

bool priced_elsewhere(const plan::Action& action) {
  switch (action.kind) {
    case plan::ActionKind::GatherParameter:
    case plan::ActionKind::GatherReused:
    // C33: with its bucket's reduction.
    case plan::ActionKind::ReduceExperts:
    // Norms and biases of a mesh: little beside the buckets, which are priced as if they held all.
    case plan::ActionKind::ReduceShared: return true;
    case plan::ActionKind::ReduceGradient: return action.micro_batch >= 0;
    default: return false;
  }
}

ComputeTicks ActionTimes::compute(const plan::Action& action) const {
  ComputeTicks ticks;
  switch (action.kind) {
    case plan::ActionKind::Forward:
      ticks.forward = overhead_of(action);
      for (int block = action.first_block; block < action.end_block; ++block) ticks.forward += forward_[at(block)];
      return ticks;
    case plan::ActionKind::Backward: return backward_time(action, backward_);
    // C28: what is recomputed is needed first by I, and kept for W.
    case plan::ActionKind::BackwardInput: return backward_time(action, input_);
    case plan::ActionKind::BackwardWeight:
      ticks.backward = overhead_of(action);
      for (int block = action.first_block; block < action.end_block; ++block) ticks.backward += weight_[at(block)];
      return ticks;
    case plan::ActionKind::CountLoss: ticks.forward = overhead_; return ticks;
    case plan::ActionKind::Optimizer: ticks.optimizer = overhead_ + optimizer_; return ticks;
    default: break;
  }
  COX_ENSURE(false, "no compute action", plan::to_text(action));
  return ticks;
}

std::int64_t ActionTimes::elements(const plan::Action& action) const {
  // Loss, squared norm and a count: a handful of numbers.
  constexpr std::int64_t kScalars = 4;
  switch (action.kind) {
    case plan::ActionKind::ReduceGradient: {
      std::int64_t sum = 0;
      for (int block = action.first_block; block < action.end_block; ++block) sum += gradients_[at(block)];
      return sum;
    }
    case plan::ActionKind::ReduceReused: return reused_;
    case plan::ActionKind::ReduceTied: {
      const plan::TiedParameter& tied = tied_[static_cast<std::size_t>(action.tied)];
      return cost_.facts().parameters()[static_cast<std::size_t>(tied.parameter)].elements;
    }
    default: return kScalars;
  }
}

Bytes ActionTimes::edge_bytes(const plan::Action& action, std::int64_t samples) const {
  const ModelFacts& facts = cost_.facts();
  const plan::BlockRun run = plan::run_of(stage_, action.chunk);
  switch (action.kind) {
    case plan::ActionKind::SendActivation: return facts.activation_bytes(run.end_block, samples, plan_.precision);
    case plan::ActionKind::ReceiveActivation: return facts.activation_bytes(run.first_block, samples, plan_.precision);
    case plan::ActionKind::SendGradient: return facts.gradient_bytes(run.first_block, samples, plan_.precision);
    case plan::ActionKind::ReceiveGradient: return facts.gradient_bytes(run.end_block, samples, plan_.precision);
    default: break;
  }
  COX_ENSURE(false, "no edge action", plan::to_text(action));
  return Bytes(0);
}

}  // namespace coxswain::cost_model
