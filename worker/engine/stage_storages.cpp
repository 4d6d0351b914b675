#include "worker/engine/stage_storages.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "worker/engine/casting.h"
#include "worker/engine/zero_stage.h"

namespace coxswain::worker {
namespace {

using plan::Action;
using plan::ActionKind;

const plan::Stage& stage_of(const StagePlace& place) {
  return place.plan.stages[plan::place_of(place.plan, place.rank).stage];
}

// Each once, though several chunks use it.
std::vector<int> parameters_of(const model::ModelGraph& graph, const plan::Stage& stage) {
  std::vector<int> all;
  for (const plan::BlockRun& run : plan::runs_of(stage))
    for (const int p : model::slice_stage(graph, run.first_block, run.end_block).parameters)
      if (std::find(all.begin(), all.end(), p) == all.end()) all.push_back(p);
  return all;
}

// Gradients that travel live where the backend need not copy them.
std::function<Result<std::shared_ptr<void>>(Bytes)> gradient_allocator(const StagePlace& place, const Action& action) {
  const plan::RankPlace own = plan::place_of(place.plan, place.rank);
  const int group = action.kind == ActionKind::ReduceShared ? place.mesh.stage_group
                    : action.kind == ActionKind::ReduceExperts
                        ? place.mesh.holders_group
                        : plan::group_of(place.plan, place.groups, own.stage, action, own.position);
  if (group < 0 || static_cast<std::size_t>(group) >= place.communicators.size()) return {};
  collective::Communicator* communicator = place.communicators[group];
  if (!communicator || communicator->size() == 1 || !communicator->capabilities().registered_buffers) return {};
  return [communicator](Bytes bytes) { return communicator->allocate_registered(bytes); };
}

}  // namespace

StageStorages::StageStorages(const StagePlace& place) {
  add_buckets(place);
  sort_parameters(place);
  add_tied(place);
  const auto reads = find_reads(place.mesh.view.graph(), plan::runs_of(stage_of(place)), place.plan.precision);
  for (StorageSpec& spec : specs_) {
    for (const int p : spec.parameters) {
      if (!place.mesh.counts_in_norm(p)) spec.not_in_norm.push_back(p);
      if (reads.copy[p] != 0) spec.copied.push_back(p);
      spec.sharding.reads_master.push_back(reads.master[p]);
      spec.sharding.reads_copy.push_back(reads.copy[p]);
    }
  }
}

void StageStorages::add_buckets(const StagePlace& place) {
  const plan::Stage& stage = stage_of(place);
  std::vector<int> starts = stage.bucket_starts;
  const Sharding sharding = starts.empty() ? Sharding{} : sharding_of(place.plan, place.groups, place.rank);
  if (starts.empty()) starts = {stage.first_block};
  specs_.resize(starts.size());
  for (std::size_t b = 0; b < starts.size(); ++b) {
    of_bucket_[starts[b]] = static_cast<int>(b);
    specs_[b].sharding = sharding;
    specs_[b].allocate_gradient = gradient_allocator(
        place, {ActionKind::ReduceGradient, -1, starts[b], b == 0 ? stage.end_block : starts[b - 1], -1});
  }
}

void StageStorages::sort_parameters(const StagePlace& place) {
  const plan::Stage& stage = stage_of(place);
  StorageSpec shared, reused;
  shared.allocate_gradient = gradient_allocator(place, {ActionKind::ReduceShared});
  reused.sharding = sharding_of(place.plan, place.groups, place.rank, true);
  for (const int p : parameters_of(place.graph, stage)) {
    const bool is_tied = std::any_of(place.tied.begin(), place.tied.end(),
                                     [p](const plan::TiedParameter& tied) { return tied.parameter == p; });
    if (!place.graph.parameters[p].trainable || is_tied) continue;
    if (!place.mesh.in_bucket[p]) {
      shared.parameters.push_back(p);
      continue;
    }
    const auto users = model::blocks_using(place.graph, p);
    const int lowest =
        *std::find_if(users.begin(), users.end(), [&](int b) { return plan::position_of(stage, b) >= 0; });
    // The bucket that begins at the block or last before it.
    const auto after = of_bucket_.upper_bound(lowest);
    if (place.mesh.divided[p] != 0) {
      if (after != of_bucket_.begin()) specs_[experts_of(place, std::prev(after)->first)].parameters.push_back(p);
      continue;
    }
    if (stage.zero_stage >= 2 && reused.sharding.zero_stage > 0 && users.size() > 1) {
      reused.parameters.push_back(p);
      continue;
    }
    if (after != of_bucket_.begin()) specs_[std::prev(after)->second].parameters.push_back(p);
  }
  of_shared_ = static_cast<int>(specs_.size());
  specs_.push_back(std::move(shared));
  if (reused.parameters.empty()) return;
  of_reused_ = static_cast<int>(specs_.size());
  specs_.push_back(std::move(reused));
}

int StageStorages::experts_of(const StagePlace& place, int first_block) {
  const auto [found, added] = of_experts_.emplace(first_block, static_cast<int>(specs_.size()));
  if (added) {
    StorageSpec spec;
    spec.allocate_gradient = gradient_allocator(place, {ActionKind::ReduceExperts});
    specs_.push_back(std::move(spec));
  }
  return found->second;
}

void StageStorages::add_tied(const StagePlace& place) {
  const int stage = plan::place_of(place.plan, place.rank).stage;
  of_tied_.assign(place.tied.size(), -1);
  for (std::size_t t = 0; t < place.tied.size(); ++t) {
    const auto& stages = place.tied[t].stages;
    if (std::find(stages.begin(), stages.end(), stage) == stages.end()) continue;
    of_tied_[t] = static_cast<int>(specs_.size());
    specs_.push_back({{place.tied[t].parameter},
                      stages.front() == stage,
                      {},
                      gradient_allocator(place, {ActionKind::ReduceTied, -1, -1, -1, static_cast<int>(t)})});
  }
}

int StageStorages::of(const Action& action) const {
  switch (action.kind) {
    case ActionKind::ReduceTied: return of_tied_[action.tied];
    case ActionKind::Forward:
    case ActionKind::Backward:
    case ActionKind::BackwardInput:
    case ActionKind::BackwardWeight:
    case ActionKind::ReduceGradient:
    case ActionKind::GatherParameter: {
      const auto found = of_bucket_.find(action.first_block);
      return found == of_bucket_.end() ? -1 : found->second;
    }
    case ActionKind::ReduceExperts: {
      const auto found = of_experts_.find(action.first_block);
      return found == of_experts_.end() ? -1 : found->second;
    }
    case ActionKind::ReduceShared: return of_shared_;
    case ActionKind::ReduceReused:
    case ActionKind::GatherReused: return of_reused_;
    default: return -1;
  }
}

}  // namespace coxswain::worker
