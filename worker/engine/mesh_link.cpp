#include "worker/engine/mesh_link.h"

#include <array>
#include <utility>

#include "common/ensure.h"
#include "worker/engine/mesh_experts.h"
#include "worker/engine/mesh_kernels.h"
#include "worker/engine/transitions.h"

namespace coxswain::worker {
namespace {

constexpr std::array<std::pair<std::string_view, MeshKernel>, 14> kKernels{{
    {"coxswain::all_gather", all_gather},
    {"coxswain::all_reduce", static_cast<MeshKernel>(all_reduce)},
    {"coxswain::all_to_all", all_to_all},
    {"coxswain::cross_entropy", mesh_cross_entropy},
    {"coxswain::expert_combine", mesh_expert_combine},
    {"coxswain::expert_dispatch", mesh_expert_dispatch},
    {"coxswain::expert_indices", mesh_expert_indices},
    {"coxswain::expert_route", mesh_expert_route},
    {"coxswain::local_index", local_index},
    {"coxswain::mask_rows", mask_rows},
    {"coxswain::reduce_scatter", reduce_scatter},
    {"coxswain::ring_attention", mesh_ring_attention},
    {"coxswain::slice", slice},
    {"coxswain::to_partial", to_partial},
}};

}  // namespace

MeshKernel find_mesh_kernel(std::string_view target) {
  for (const auto& [name, kernel] : kKernels)
    if (name == target) return kernel;
  return nullptr;
}

const MeshGroup& MeshLink::group(std::int64_t axes) const {
  const auto found = groups.find(static_cast<plan::AxisSet>(axes));
  if (found != groups.end()) return found->second;
  throw CommunicationError({ErrorCode::Internal, "no communicator for these axes of the mesh", "", "one of mesh_groups",
                            "axes " + std::to_string(axes), ""});
}

ParallelLink link_of(const MeshCall& call, std::string_view axes) {
  const MeshGroup& group = call.group(axes);
  ParallelLink link;
  link.communicator = group.size() > 1 ? group.communicator : nullptr;
  link.step = &call.link().deadline;
  link.where = &call.where();
  link.ranks = &group.ranks;
  return link;
}

const model::Argument::Variant* MeshCall::find(std::string_view name) const {
  for (const model::Argument& argument : op_.arguments)
    if (argument.name == name && !std::holds_alternative<model::None>(argument.value)) return &argument.value;
  return nullptr;
}

at::Tensor MeshCall::tensor(std::string_view name) const {
  std::size_t next = 0;
  for (const model::Argument& argument : op_.arguments) {
    if (!std::holds_alternative<model::ValueRef>(argument.value)) continue;
    if (argument.name == name) return tensors_[next];
    ++next;
  }
  return {};
}

std::int64_t MeshCall::integer(std::string_view name) const {
  const auto* found = find(name);
  const auto* dim = found ? std::get_if<model::Dim>(found) : nullptr;
  COX_ENSURE(dim && dim->is_constant(), where_, std::string(name));
  return dim->constant();
}

std::optional<double> MeshCall::number(std::string_view name) const {
  const auto* found = find(name);
  if (!found) return std::nullopt;
  if (const auto* value = std::get_if<double>(found)) return *value;
  return static_cast<double>(integer(name));
}

bool MeshCall::flag(std::string_view name) const {
  const auto* found = find(name);
  const auto* value = found ? std::get_if<bool>(found) : nullptr;
  return value && *value;
}

std::vector<std::int64_t> MeshCall::integers(std::string_view name) const {
  const auto* found = find(name);
  std::vector<std::int64_t> values;
  if (!found) return values;
  const auto* dims = std::get_if<std::vector<model::Dim>>(found);
  COX_ENSURE(dims, where_, std::string(name));
  for (const model::Dim& dim : *dims) values.push_back(dim.constant());
  return values;
}

}  // namespace coxswain::worker
