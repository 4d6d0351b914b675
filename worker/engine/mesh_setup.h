#pragma once
// What a rank on a mesh, or of an expert axis, runs and how its gradients are summed: its part of the graph, its links
// to the other positions and replicas, which parameters go in buckets (all positions of the tensor axis hold different
// parts of them) and which are shared.
// Called by engine. Threads: the engine's one. Private to worker/engine. Source: docs/adr/0009, docs/plan.md.
#include <memory>
#include <optional>
#include <vector>

#include "common/result.h"
#include "plan/layout/local_graph.h"
#include "plan/plan.h"
#include "plan/program.h"
#include "worker/engine/engine.h"
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

struct MeshSetup {
  std::optional<plan::LocalGraph> part;  // none on a mesh of one device without an expert axis
  MeshLink link;
  LocalView view;               // of the members above
  int stage_group = -1;         // of REDUCE_SHARED among the communicators
  int holders_group = -1;       // of REDUCE_EXPERTS among them; -1: nobody else holds these experts
  std::vector<char> divided;    // by parameter: tables of experts, of which replicas hold different ones
  std::vector<char> in_bucket;  // by parameter: reduced over StageReplicas, like parameters without a mesh
  plan::RankPlace place;
  plan::ExpertPlace experts;
  /// Of all positions and replicas that hold a part of a parameter, the first counts it in the norm.
  [[nodiscard]] bool counts_in_norm(int parameter) const;

  /// `communicators` of plan::rank_groups, `num_groups` of them of plan::make_groups; borrowed like `graph`.
  /// Errors: as `localise`; InvalidArgument (no communicators).
  [[nodiscard]] static Result<std::unique_ptr<MeshSetup>> make(
      const model::ModelGraph& graph, const plan::Plan& plan, int rank,
      const std::vector<collective::Communicator*>& communicators, std::size_t num_groups, const Localise& localise);
};

}  // namespace coxswain::worker
