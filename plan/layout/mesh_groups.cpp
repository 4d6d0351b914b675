#include "plan/layout/mesh_groups.h"

#include <algorithm>

namespace coxswain::plan {
namespace {

bool has_mesh(const Stage& stage) {
  return std::any_of(stage.replicas.begin(), stage.replicas.end(),
                     [](const Replica& replica) { return replica.devices.size() > 1; });
}

}  // namespace

std::vector<Group> mesh_groups(const Plan& plan, int rank) {
  std::size_t rounds = 0;
  for (const Stage& stage : plan.stages)
    for (const Replica& replica : stage.replicas)
      if (replica.devices.size() > 1) rounds = std::max(rounds, std::size_t{1} << mesh_axes(replica).size());
  std::vector<Group> groups(rounds);
  const RankPlace place = place_of(plan, rank);
  const Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
  const Replica& replica = stage.replicas[static_cast<std::size_t>(place.replica)];
  for (Group& group : groups) group = {GroupKind::Mesh, place.stage, {}, 0};
  if (rounds == 0) return groups;
  groups[kStageRound].kind = GroupKind::Stage;
  if (has_mesh(stage)) {
    for (std::size_t r = 0; r < stage.replicas.size(); ++r)
      for (std::size_t p = 0; p < stage.replicas[r].devices.size(); ++p)
        groups[kStageRound].ranks.push_back(rank_of(plan, {place.stage, static_cast<int>(r), static_cast<int>(p)}));
  }
  const std::vector<MeshAxis> axes = mesh_axes(replica);
  for (AxisSet set = 1; set < AxisSet{1} << axes.size(); ++set)
    for (const int position : members_of(axes, set, place.position))
      groups[mesh_round(set)].ranks.push_back(rank_of(plan, {place.stage, place.replica, position}));
  return groups;
}

std::vector<Group> rank_groups(const Plan& plan, const model::ModelGraph& graph, int rank) {
  std::vector<Group> groups = make_groups(plan, graph);
  for (Group& group : mesh_groups(plan, rank)) groups.push_back(std::move(group));
  return groups;
}

}  // namespace coxswain::plan
