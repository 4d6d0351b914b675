#pragma once
// Communication groups inside meshes, which transitions use, those of whole stages, which sum the gradients of what
// is not cut by every axis, and those of an expert axis. They come after make_groups, in one order on every rank: a
// round for each set of axes, in which every mesh splits into its own groups at the same time. Called by whoever makes
// communicators, and by the engine. Threads: pure. Source: DESIGN 3.7, docs/plan.md.
#include <vector>

#include "plan/layout/local_graph.h"
#include "plan/program.h"

namespace coxswain::plan {

/// Position in mesh_groups of a mesh's group over `axes`. Requires: axes is not empty.
[[nodiscard]] inline std::size_t mesh_round(AxisSet axes) { return axes; }
/// Position in mesh_groups of the group of a rank's whole stage.
inline constexpr std::size_t kStageRound = 0;

/// By round: the group of `rank` (GroupKind::Mesh or Stage; index: the stage; ranks ascending), without ranks where it
/// takes no part. Where a stage has an expert axis two rounds follow: Experts, of which rows travel, and ExpertHolders,
/// which add up the gradients of their experts. As many rounds on every rank; none where every mesh has one device and
/// no stage an expert axis. Requires: V25.
[[nodiscard]] std::vector<Group> mesh_groups(const Plan& plan, int rank);

/// make_groups, then mesh_groups: the communicators of `rank`, one call of Communicator::split each (but the world),
/// with the group's ranks if it has `rank`, else with none.
[[nodiscard]] std::vector<Group> rank_groups(const Plan& plan, const model::ModelGraph& graph, int rank);

}  // namespace coxswain::plan
