#include "plan/layout/mesh_groups.h"

#include <algorithm>

#include "plan/experts.h"

namespace coxswain::plan {
namespace {

bool has_mesh(const Stage& stage) {
  return std::any_of(stage.replicas.begin(), stage.replicas.end(),
                     [](const Replica& replica) { return replica.devices.size() > 1; });
}

/// Rounds of the stage and of every set of axes.
void fill_mesh_rounds(std::vector<Group>& groups, const Plan& plan, const RankPlace& place) {
  const Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
  groups[kStageRound].kind = GroupKind::Stage;
  if (has_mesh(stage)) {
    for (std::size_t r = 0; r < stage.replicas.size(); ++r)
      for (std::size_t p = 0; p < stage.replicas[r].devices.size(); ++p)
        groups[kStageRound].ranks.push_back(rank_of(plan, {place.stage, static_cast<int>(r), static_cast<int>(p)}));
  }
  const std::vector<MeshAxis> axes = mesh_axes(stage.replicas[static_cast<std::size_t>(place.replica)]);
  for (AxisSet set = 1; set < AxisSet{1} << axes.size(); ++set)
    for (const int position : members_of(axes, set, place.position))
      groups[mesh_round(set)].ranks.push_back(rank_of(plan, {place.stage, place.replica, position}));
}

void add_expert_rounds(std::vector<Group>& groups, const Plan& plan, const RankPlace& place) {
  const Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
  Group experts{GroupKind::Experts, place.stage, {}, 0}, holders{GroupKind::ExpertHolders, place.stage, {}, 0};
  if (has_expert_axis(stage)) {
    const ExpertPlace own = expert_place(stage, place.replica);
    const int first = place.replica - own.index;
    for (int r = first; r < first + own.size; ++r)
      experts.ranks.push_back(rank_of(plan, {place.stage, r, place.position}));
    const Replica& mesh = stage.replicas[static_cast<std::size_t>(place.replica)];
    for (int r = own.index; r < static_cast<int>(stage.replicas.size()); r += own.size)
      for (int part = 0; part < mesh.context; ++part)
        holders.ranks.push_back(rank_of(plan, {place.stage, r, part * mesh.tensor + place.position % mesh.tensor}));
    if (holders.ranks.size() == 1) holders.ranks.clear();
  }
  groups.push_back(std::move(experts));
  groups.push_back(std::move(holders));
}

}  // namespace

std::vector<Group> mesh_groups(const Plan& plan, int rank) {
  std::size_t rounds = 0;
  for (const Stage& stage : plan.stages)
    for (const Replica& replica : stage.replicas)
      if (replica.devices.size() > 1) rounds = std::max(rounds, std::size_t{1} << mesh_axes(replica).size());
  std::vector<Group> groups(rounds);
  const RankPlace place = place_of(plan, rank);
  for (Group& group : groups) group = {GroupKind::Mesh, place.stage, {}, 0};
  if (rounds > 0) fill_mesh_rounds(groups, plan, place);
  if (std::any_of(plan.stages.begin(), plan.stages.end(), has_expert_axis)) add_expert_rounds(groups, plan, place);
  return groups;
}

std::vector<Group> rank_groups(const Plan& plan, const model::ModelGraph& graph, int rank) {
  std::vector<Group> groups = make_groups(plan, graph);
  for (Group& group : mesh_groups(plan, rank)) groups.push_back(std::move(group));
  return groups;
}

}  // namespace coxswain::plan
