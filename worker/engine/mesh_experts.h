#pragma once
// Operators of an expert axis, from their arguments to expert_parallel: rows travel between replicas and back. A
// routing goes from operator to operator as a tensor of numbers, so that the graph alone says who needs it and when it
// is let go. Called through find_mesh_kernel. Threads: the engine's one. Private to worker/engine. Source:
// plan/layout/local_graph.h (contract of each), docs/adr/0015.
#include "worker/engine/expert_parallel.h"
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

/// (n), int64, and back.
[[nodiscard]] at::Tensor to_tensor(const ExpertRouting& routing);
[[nodiscard]] ExpertRouting routing_from_tensor(const at::Tensor& tensor);

[[nodiscard]] at::Tensor mesh_expert_route(const MeshCall& call);
[[nodiscard]] at::Tensor mesh_expert_indices(const MeshCall& call);
[[nodiscard]] at::Tensor mesh_expert_dispatch(const MeshCall& call);
[[nodiscard]] at::Tensor mesh_expert_combine(const MeshCall& call);

}  // namespace coxswain::worker
