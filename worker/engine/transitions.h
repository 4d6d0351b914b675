#pragma once
// Changes of a placement: the collectives between operators, as nodes of the block's autograd graph whose backward runs
// the dual collective. Same order on every position, since all have the same graph. float32, bfloat16 and, where
// nothing is added, any dtype. Called through find_mesh_kernel. Threads: the engine's one. Private to worker/engine.
// Source: plan/layout/local_graph.h (contract of each), docs/adr/0009.
#include <ATen/core/TensorBody.h>

#include <span>
#include <vector>

#include "plan/layout/local_graph.h"
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

/// A dim as (outer, extent, inner) and the rows of `extent` that each member of a group has.
struct Layout {
  std::int64_t dim = 0, outer = 1, inner = 1, extent = 0;
  std::vector<std::vector<plan::Cut::Run>> runs;  // by member
};
/// From a transition's arguments: first and size of every run, member after member.
[[nodiscard]] Layout layout_of(const MeshCall& call, const std::string& prefix = "");

/// What `cuts` leave of a whole tensor, contiguous; the tensor itself where there are none. Differentiable.
[[nodiscard]] at::Tensor cut_tensor(const at::Tensor& whole, std::span<const plan::Cut> cuts);

[[nodiscard]] at::Tensor all_reduce(const MeshCall& call);
[[nodiscard]] at::Tensor to_partial(const MeshCall& call);
[[nodiscard]] at::Tensor all_gather(const MeshCall& call);
[[nodiscard]] at::Tensor reduce_scatter(const MeshCall& call);
[[nodiscard]] at::Tensor slice(const MeshCall& call);
[[nodiscard]] at::Tensor all_to_all(const MeshCall& call);
[[nodiscard]] at::Tensor local_index(const MeshCall& call);
[[nodiscard]] at::Tensor mask_rows(const MeshCall& call);

}  // namespace coxswain::worker
