// Who talks to whom: communication groups and the sample ranges that cross an edge.
#include <algorithm>
#include <numeric>

#include "common/ensure.h"
#include "plan/program.h"

namespace coxswain::plan {
namespace {

int ranks_of_stage(const Stage& stage) {
  std::size_t count = 0;
  for (const Replica& replica : stage.replicas) count += replica.devices.size();
  return static_cast<int>(count);
}

/// Ranks [first, first + count).
std::vector<int> range(int first, int count) {
  std::vector<int> ranks(static_cast<std::size_t>(count));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

/// Overlaps of this rank's samples with those of the replicas of stage `other`.
std::vector<Transfer> intersect(const Plan& plan, int rank, int other) {
  if (other < 0 || other >= static_cast<int>(plan.stages.size())) return {};
  const RankPlace place = place_of(plan, rank);
  const Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
  const Stage& peers = plan.stages[static_cast<std::size_t>(other)];
  const std::int64_t mine = first_sample(stage, place.replica);
  const std::int64_t mine_end = mine + stage.replicas[static_cast<std::size_t>(place.replica)].samples;

  std::vector<Transfer> transfers;
  std::int64_t begin = 0;
  int peer = rank_of(plan, {other, 0, 0});
  for (const Replica& replica : peers.replicas) {
    const std::int64_t end = begin + replica.samples;
    const std::int64_t first = std::max(begin, mine);
    const std::int64_t last = std::min(end, mine_end);
    // Every position of a mesh holds the whole range until tensor and context axes are executed: position 0 speaks.
    if (first < last) transfers.push_back({peer, first - mine, last - first});
    begin = end;
    peer += static_cast<int>(replica.devices.size());
  }
  return transfers;
}

bool is_group_of(const Group& group, GroupKind kind, int index) { return group.kind == kind && group.index == index; }

}  // namespace

std::vector<Group> make_groups(const Plan& plan, const model::ModelGraph& graph) {
  const int num_stages = static_cast<int>(plan.stages.size());
  std::vector<int> first(static_cast<std::size_t>(num_stages) + 1, 0);
  for (int s = 0; s < num_stages; ++s) {
    const auto position = static_cast<std::size_t>(s);
    first[position + 1] = first[position] + ranks_of_stage(plan.stages[position]);
  }
  const auto stage_ranks = [&](int begin, int end) {
    const int from = first[static_cast<std::size_t>(begin)];
    return range(from, first[static_cast<std::size_t>(end)] - from);
  };

  std::vector<Group> groups;
  groups.push_back({GroupKind::World, 0, stage_ranks(0, num_stages)});
  for (int s = 0; s < num_stages; ++s) {
    Group group{GroupKind::StageReplicas, s, stage_ranks(s, s + 1)};
    if (group.ranks.size() > 1) groups.push_back(std::move(group));
  }
  for (const GroupKind kind : {GroupKind::ActivationEdge, GroupKind::GradientEdge}) {
    for (int s = 0; s + 1 < num_stages; ++s) groups.push_back({kind, s, stage_ranks(s, s + 2)});
  }
  const std::vector<TiedParameter> tied = tied_parameters(plan, graph);
  for (std::size_t t = 0; t < tied.size(); ++t) {
    Group group{GroupKind::Tied, static_cast<int>(t), {}};
    for (const int s : tied[t].stages) {
      const std::vector<int> ranks = stage_ranks(s, s + 1);
      group.ranks.insert(group.ranks.end(), ranks.begin(), ranks.end());
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

int group_of(const Plan& plan, const std::vector<Group>& groups, int stage, const Action& action) {
  COX_ENSURE(0 <= stage && stage < static_cast<int>(plan.stages.size()), stage);
  GroupKind kind = GroupKind::World;
  int index = 0;
  switch (action.kind) {
    case ActionKind::Forward:
    case ActionKind::Backward:
    case ActionKind::BackwardInput:
    case ActionKind::BackwardWeight:
    case ActionKind::CountLoss:
    case ActionKind::Optimizer: return -1;
    case ActionKind::SendActivation:
      kind = GroupKind::ActivationEdge;
      index = stage;
      break;
    case ActionKind::ReceiveActivation:
      kind = GroupKind::ActivationEdge;
      index = stage - 1;
      break;
    case ActionKind::SendGradient:
      kind = GroupKind::GradientEdge;
      index = stage - 1;
      break;
    case ActionKind::ReceiveGradient:
      kind = GroupKind::GradientEdge;
      index = stage;
      break;
    case ActionKind::ReduceLossCount:
    case ActionKind::ReduceGradient:
      kind = GroupKind::StageReplicas;
      index = stage;
      break;
    case ActionKind::ReduceTied:
    case ActionKind::BroadcastTied:
      kind = GroupKind::Tied;
      index = action.tied;
      break;
    case ActionKind::ReduceNorm:
      kind = GroupKind::World;
      index = 0;
      break;
  }
  const auto found =
      std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return is_group_of(g, kind, index); });
  return found == groups.end() ? -1 : static_cast<int>(found - groups.begin());
}

std::vector<Transfer> transfers_to_next(const Plan& plan, int rank) {
  return intersect(plan, rank, place_of(plan, rank).stage + 1);
}

std::vector<Transfer> transfers_from_previous(const Plan& plan, int rank) {
  return intersect(plan, rank, place_of(plan, rank).stage - 1);
}

}  // namespace coxswain::plan
