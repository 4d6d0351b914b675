#include "worker/engine/mesh_setup.h"

#include <algorithm>

#include "plan/layout/mesh_groups.h"

namespace coxswain::worker {
namespace {

bool same_mesh(const plan::Replica& a, const plan::Replica& b) {
  return a.tensor == b.tensor && a.context == b.context;
}

plan::AxisSet axes_of(const std::vector<plan::MeshAxis>& axes, plan::AxisKind kind) {
  plan::AxisSet set = 0;
  for (std::size_t a = 0; a < axes.size(); ++a)
    if (axes[a].kind == kind) set |= plan::AxisSet{1} << a;
  return set;
}

Result<void> connect(MeshSetup& setup, const plan::Plan& plan, int rank,
                     const std::vector<collective::Communicator*>& communicators, std::size_t num_groups) {
  const std::vector<plan::Group> groups = plan::mesh_groups(plan, rank);
  if (groups.empty()) return {};
  if (groups.front().kind == plan::GroupKind::Stage && !groups.front().ranks.empty())
    setup.stage_group = static_cast<int>(num_groups + plan::kStageRound);
  for (std::size_t set = 0; set < groups.size(); ++set) {
    const plan::GroupKind kind = groups[set].kind;
    if (groups[set].ranks.empty() || kind == plan::GroupKind::Stage) continue;
    if (kind == plan::GroupKind::ExpertHolders) {
      setup.holders_group = static_cast<int>(num_groups + set);
      continue;
    }
    MeshGroup group;
    group.ranks = groups[set].ranks;
    group.place = static_cast<int>(std::find(group.ranks.begin(), group.ranks.end(), rank) - group.ranks.begin());
    if (num_groups + set < communicators.size()) group.communicator = communicators[num_groups + set];
    if (!group.communicator) {
      return Error{ErrorCode::InvalidArgument,
                   "a rank of a mesh without its communicators",
                   "rank " + std::to_string(rank),
                   "one for each group of plan::rank_groups",
                   std::to_string(communicators.size()) + " communicators",
                   ""};
    }
    const bool travels = kind == plan::GroupKind::Experts;
    setup.link.groups.emplace(travels ? plan::kExpertAxis : static_cast<plan::AxisSet>(set), std::move(group));
  }
  return {};
}

// Devices of one position hold the same part in every replica of the same mesh, whatever its samples
// (plan/layout/choices.h, kSamples), so their sum goes element by element; replicas of other meshes sum whole
// parameters.
void find_buckets(MeshSetup& setup, std::size_t num_parameters, const plan::Stage& stage) {
  const bool equal = std::all_of(stage.replicas.begin(), stage.replicas.end(),
                                 [&](const plan::Replica& other) { return same_mesh(stage.replicas.front(), other); });
  setup.in_bucket.assign(num_parameters, equal ? 1 : 0);
  if (!equal || !setup.part) return;
  const plan::AxisSet context = axes_of(setup.part->axes, plan::AxisKind::Context);
  for (std::size_t p = 0; p < num_parameters; ++p) setup.in_bucket[p] = setup.part->gradient_axes[p] == context ? 1 : 0;
}

}  // namespace

bool MeshSetup::counts_in_norm(int parameter) const {
  if (place.replica >= (divided[static_cast<std::size_t>(parameter)] != 0 ? experts.size : 1)) return false;
  if (!part) return true;
  const auto members =
      plan::members_of(part->axes, part->gradient_axes[static_cast<std::size_t>(parameter)], link.position);
  return members.front() == link.position;
}

Result<std::unique_ptr<MeshSetup>> MeshSetup::make(const model::ModelGraph& graph, const plan::Plan& plan, int rank,
                                                   const std::vector<collective::Communicator*>& communicators,
                                                   std::size_t num_groups, const Localise& localise) {
  auto setup = std::make_unique<MeshSetup>();
  const plan::RankPlace place = plan::place_of(plan, rank);
  const plan::Stage& stage = plan.stages[static_cast<std::size_t>(place.stage)];
  const plan::Replica& replica = stage.replicas[static_cast<std::size_t>(place.replica)];
  setup->place = place;
  setup->experts = plan::expert_place(stage, place.replica);
  setup->link.position = place.position;
  setup->view.whole = &graph;
  setup->divided.assign(graph.parameters.size(), 0);
  if (setup->experts.size > 1) {
    const std::vector<std::int64_t> counts = plan::expert_counts(graph);
    std::transform(counts.begin(), counts.end(), setup->divided.begin(), [](std::int64_t count) { return count > 0; });
  }
  if (replica.devices.size() > 1 || setup->experts.size > 1) {
    COX_TRY(setup->part, localise(graph, stage, replica, place.position));
    setup->view.part = &*setup->part;
    setup->view.link = &setup->link;
  }
  COX_TRY_VOID(connect(*setup, plan, rank, communicators, num_groups));
  find_buckets(*setup, graph.parameters.size(), stage);
  return setup;
}

}  // namespace coxswain::worker
