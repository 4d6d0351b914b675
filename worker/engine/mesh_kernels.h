#pragma once
// Operators of the mesh that are not transitions: what each takes from its arguments. Called through find_mesh_kernel.
// Threads: the engine's one. Private to worker/engine. Source: plan/layout/local_graph.h.
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

[[nodiscard]] at::Tensor mesh_cross_entropy(const MeshCall& call);
[[nodiscard]] at::Tensor mesh_ring_attention(const MeshCall& call);

}  // namespace coxswain::worker
