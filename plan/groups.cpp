// Who talks to whom: communication groups and the sample ranges that cross an edge.
#include <algorithm>
#include <numeric>

#include "common/ensure.h"
#include "plan/derive.h"
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

/// The devices that hold equal shards of a stage, by tensor position: one of each replica and part of the sequence.
/// Where meshes differ, no shards are equal: one group, of each replica's first device, for counts of the loss.
void add_replica_groups(std::vector<Group>& groups, const Stage& stage, int index, int first_rank,
                        GroupKind kind = GroupKind::StageReplicas) {
  if (num_holders(stage) < 2) return;
  if (!has_equal_meshes(stage)) {
    Group group{GroupKind::StageReplicas, index, {}, 0};
    for (const Replica& replica : stage.replicas) {
      group.ranks.push_back(first_rank);
      first_rank += static_cast<int>(replica.devices.size());
    }
    if (group.ranks.size() > 1) groups.push_back(std::move(group));
    return;
  }
  for (int position = 0; position < stage.replicas.front().tensor; ++position) {
    Group group{kind, index, {}, position};
    int rank = first_rank;
    for (const Replica& replica : stage.replicas) {
      const int size = static_cast<int>(replica.devices.size());
      for (int part = 0; part < replica.context; ++part)
        group.ranks.push_back(rank +
                              std::min(part * replica.tensor + std::min(position, replica.tensor - 1), size - 1));
      rank += size;
    }
    groups.push_back(std::move(group));
  }
}

}  // namespace

int part_of(const Plan& plan, int stage, int chunk) {
  return part_of(plan.schedule, stage, static_cast<int>(plan.stages.size()), chunk);
}

int num_parts(const Plan& plan) {
  const auto stages = static_cast<int>(plan.stages.size());
  return stages == 0 ? 0 : stages * num_chunks(plan.stages.front());
}

std::vector<Edge> pipeline_edges(const Plan& plan) {
  const int num_stages = static_cast<int>(plan.stages.size());
  std::vector<Edge> edges;
  for (int s = 0; s + 1 < num_stages; ++s) edges.push_back({s, s, s + 1});
  if (num_stages < 2 || num_parts(plan) == num_stages) return edges;
  if (is_v_shaped(plan.schedule)) {
    for (int s = 0; s + 1 < num_stages; ++s) edges.push_back({num_stages + s, s + 1, s});
  } else {
    edges.push_back({num_stages - 1, num_stages - 1, 0});
  }
  return edges;
}

namespace {

/// Between a part and the one after it.
std::optional<Edge> edge_after(const Plan& plan, int part) {
  if (part < 0 || part + 1 >= num_parts(plan)) return std::nullopt;
  const int num_stages = static_cast<int>(plan.stages.size());
  const int from = place_of_part(plan.schedule, part, num_stages).stage;
  const int to = place_of_part(plan.schedule, part + 1, num_stages).stage;
  if (from == to) return std::nullopt;
  if (to == from + 1) return Edge{from, from, to};
  return Edge{is_v_shaped(plan.schedule) ? num_stages + to : from, from, to};
}

}  // namespace

std::optional<Edge> edge_of(const Plan& plan, int stage, const Action& action) {
  const bool after = action.kind == ActionKind::SendActivation || action.kind == ActionKind::ReceiveGradient;
  return edge_after(plan, part_of(plan, stage, action.chunk) - (after ? 0 : 1));
}

int credits_of(const Plan& plan, const Edge& edge) {
  const int extra =
      edge.from < edge.to ? 0 : extra_credits(plan.schedule, static_cast<int>(plan.stages.size()), plan.batch.count);
  return std::max(plan.receive_credits, 1) + extra;
}

Stream stream_of(const Plan& plan, int stage, const Action& action) {
  const Stream plain = stream_of(action.kind);
  const std::optional<Edge> edge = is_edge(action.kind) ? edge_of(plan, stage, action) : std::nullopt;
  if (!edge || edge->from < edge->to) return plain;
  switch (plain) {
    case Stream::ActivationIn: return Stream::BackActivationIn;
    case Stream::ActivationOut: return Stream::BackActivationOut;
    case Stream::GradientIn: return Stream::BackGradientIn;
    case Stream::GradientOut: return Stream::BackGradientOut;
    default: return plain;
  }
}

bool has_edge_in(const Plan& plan, int stage, int chunk) {
  return edge_after(plan, part_of(plan, stage, chunk) - 1).has_value();
}

bool has_edge_out(const Plan& plan, int stage, int chunk) {
  return edge_after(plan, part_of(plan, stage, chunk)).has_value();
}

std::vector<Group> make_groups(const Plan& plan, const ParameterUses& uses) {
  const int num_stages = static_cast<int>(plan.stages.size());
  const std::vector<Edge> edges = pipeline_edges(plan);
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
  groups.push_back({GroupKind::World, 0, stage_ranks(0, num_stages), 0});
  for (int s = 0; s < num_stages; ++s)
    add_replica_groups(groups, plan.stages[static_cast<std::size_t>(s)], s, first[static_cast<std::size_t>(s)]);
  for (const GroupKind kind : {GroupKind::ActivationEdge, GroupKind::GradientEdge}) {
    for (const Edge& edge : edges) {
      std::vector<int> ranks = stage_ranks(std::min(edge.from, edge.to), std::min(edge.from, edge.to) + 1);
      const std::vector<int> later = stage_ranks(std::max(edge.from, edge.to), std::max(edge.from, edge.to) + 1);
      ranks.insert(ranks.end(), later.begin(), later.end());
      groups.push_back({kind, edge.index, std::move(ranks), 0});
    }
  }
  const std::vector<TiedParameter> tied = tied_parameters(plan, uses);
  for (std::size_t t = 0; t < tied.size(); ++t) {
    Group group{GroupKind::Tied, static_cast<int>(t), {}, 0};
    for (const int s : tied[t].stages) {
      const std::vector<int> ranks = stage_ranks(s, s + 1);
      group.ranks.insert(group.ranks.end(), ranks.begin(), ranks.end());
    }
    std::sort(group.ranks.begin(), group.ranks.end());
    groups.push_back(std::move(group));
  }
  // Gathers run beside reductions: operations of one communicator keep one order.
  for (int s = 0; s < num_stages; ++s) {
    const Stage& stage = plan.stages[static_cast<std::size_t>(s)];
    if (zero_of(stage) == 3)
      add_replica_groups(groups, stage, s, first[static_cast<std::size_t>(s)], GroupKind::StageGather);
  }
  return groups;
}

int group_of(const Plan& plan, const std::vector<Group>& groups, int stage, const Action& action, int position) {
  COX_ENSURE(0 <= stage && stage < static_cast<int>(plan.stages.size()), stage);
  GroupKind kind = GroupKind::World;
  int index = 0;
  switch (action.kind) {
    case ActionKind::Forward:
    case ActionKind::Backward:
    case ActionKind::BackwardInput:
    case ActionKind::BackwardWeight:
    case ActionKind::CountLoss:
    case ActionKind::Optimizer:
    case ActionKind::ReduceExperts:
    case ActionKind::ReduceShared: return -1;  // groups of layout/mesh_groups.h
    case ActionKind::SendActivation:
    case ActionKind::ReceiveActivation:
    case ActionKind::SendGradient:
    case ActionKind::ReceiveGradient: {
      const bool gradient = action.kind == ActionKind::SendGradient || action.kind == ActionKind::ReceiveGradient;
      kind = gradient ? GroupKind::GradientEdge : GroupKind::ActivationEdge;
      const std::optional<Edge> edge = edge_of(plan, stage, action);
      if (!edge) return -1;
      index = edge->index;
      break;
    }
    case ActionKind::ReduceLossCount:
    case ActionKind::ReduceGradient:
    case ActionKind::ReduceReused:
    case ActionKind::GatherReused:
    case ActionKind::GatherParameter:
      // Behind the update nothing is reduced: one communicator will do.
      kind = action.kind == ActionKind::GatherParameter && action.micro_batch >= 0 ? GroupKind::StageGather
                                                                                   : GroupKind::StageReplicas;
      index = stage;
      break;
    case ActionKind::ReduceTied:
      kind = GroupKind::Tied;
      index = action.tied;
      break;
    case ActionKind::ReduceNorm:
      kind = GroupKind::World;
      index = 0;
      break;
  }
  const bool by_position = kind == GroupKind::StageReplicas || kind == GroupKind::StageGather;
  const int of_position = by_position ? shard_position(plan.stages[static_cast<std::size_t>(stage)], position) : 0;
  const auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
    return group.kind == kind && group.index == index && group.position == of_position;
  });
  return found == groups.end() ? -1 : static_cast<int>(found - groups.begin());
}

std::vector<Transfer> transfers_to_next(const Plan& plan, int rank) {
  return transfers_with(plan, rank, place_of(plan, rank).stage + 1);
}

std::vector<Transfer> transfers_from_previous(const Plan& plan, int rank) {
  return transfers_with(plan, rank, place_of(plan, rank).stage - 1);
}

}  // namespace coxswain::plan
