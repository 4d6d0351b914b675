#include "worker/engine/mesh_experts.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <utility>

namespace coxswain::worker {
namespace {

// order, send_rows, receive_rows, own_experts, rows_per_expert: their lengths lead.
constexpr std::size_t kLists = 5;
using Lists = std::array<std::vector<std::int64_t>, kLists>;

std::shared_ptr<const ExpertRouting> routing_of(const MeshCall& call) {
  return std::make_shared<const ExpertRouting>(routing_from_tensor(call.tensor("routing")));
}

}  // namespace

at::Tensor to_tensor(const ExpertRouting& routing) {
  const auto* own = routing.own_experts.const_data_ptr<std::int64_t>();
  const Lists lists{routing.order, routing.send_rows, routing.receive_rows,
                    std::vector<std::int64_t>(own, own + routing.own_experts.numel()), routing.rows_per_expert};
  std::vector<std::int64_t> numbers;
  for (const auto& list : lists) numbers.push_back(static_cast<std::int64_t>(list.size()));
  for (const auto& list : lists) numbers.insert(numbers.end(), list.begin(), list.end());
  at::Tensor tensor =
      at::empty({static_cast<std::int64_t>(numbers.size())}, at::TensorOptions().dtype(c10::ScalarType::Long));
  std::copy(numbers.begin(), numbers.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

ExpertRouting routing_from_tensor(const at::Tensor& tensor) {
  const auto* numbers = tensor.const_data_ptr<std::int64_t>();
  const auto* at = numbers + kLists;
  Lists lists;
  for (std::size_t i = 0; i < kLists; ++i) {
    lists[i].assign(at, at + numbers[i]);
    at += numbers[i];
  }
  ExpertRouting routing;
  routing.order = std::move(lists[0]);
  routing.send_rows = std::move(lists[1]);
  routing.receive_rows = std::move(lists[2]);
  routing.own_experts =
      at::empty({static_cast<std::int64_t>(lists[3].size())}, at::TensorOptions().dtype(c10::ScalarType::Long));
  std::copy(lists[3].begin(), lists[3].end(), routing.own_experts.mutable_data_ptr<std::int64_t>());
  routing.rows_per_expert = std::move(lists[4]);
  return routing;
}

at::Tensor mesh_expert_route(const MeshCall& call) {
  RoutingOptions options;
  options.runs = call.integers("runs");
  options.where = call.where();
  return to_tensor(*route(call.tensor("indices"), options, link_of(call)));
}

at::Tensor mesh_expert_indices(const MeshCall& call) { return routing_from_tensor(call.tensor("routing")).own_experts; }

at::Tensor mesh_expert_dispatch(const MeshCall& call) {
  return dispatch(call.tensor("self"), routing_of(call), link_of(call));
}

at::Tensor mesh_expert_combine(const MeshCall& call) {
  return combine(call.tensor("self"), routing_of(call), link_of(call));
}

}  // namespace coxswain::worker
