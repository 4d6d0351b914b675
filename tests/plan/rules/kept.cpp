// What backward keeps: tensors are dropped behind a forward run, storages that live on are those of the recorded graph.
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "model/op_saves.h"
#include "tests/plan/rules/case_text.h"

namespace coxswain::tests {
namespace {

using Tensors = std::vector<at::Tensor>;

}  // namespace

KeptTensors find_kept(const RuleCase& one) {
  const CaseGraph read = read_case(one, DType::Float32);
  const model::Op& op = read.graph.ops[0];
  std::vector<std::pair<std::string, c10::weak_intrusive_ptr<c10::StorageImpl>>> watched;
  const auto watch = [&](const std::string& name, const at::Tensor& tensor) {
    watched.emplace_back(name, c10::weak_intrusive_ptr<c10::StorageImpl>(tensor.storage().getWeakStorageImpl()));
  };
  std::vector<std::string> names(read.inputs.size());
  for (const model::Argument& argument : op.arguments) {
    if (const auto* one_value = std::get_if<model::ValueRef>(&argument.value))
      names[static_cast<std::size_t>(one_value->id)] = argument.name;
    if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value))
      for (const auto& element : *list)
        if (element) names[static_cast<std::size_t>(element->id)] = argument.name;
  }
  std::vector<c10::intrusive_ptr<torch::autograd::Node>> nodes;
  bool differentiated = false;
  {
    Tensors inputs, leaves;
    for (std::size_t i = 0; i < read.inputs.size(); ++i) {
      leaves.push_back(read.inputs[i].whole.clone().set_requires_grad(read.inputs[i].differentiable));
      inputs.push_back(leaves.back().clone());
      watch(names[i], inputs.back());
    }
    const Tensors outputs = run_op(read.graph, op, inputs);
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const bool alias = std::any_of(inputs.begin(), inputs.end(), [&](const at::Tensor& input) {
        return input.storage().unsafeGetStorageImpl() == outputs[o].storage().unsafeGetStorageImpl();
      });
      if (!alias) watch(o == 0 ? "out" : "out" + std::to_string(o), outputs[o]);
      if (!outputs[o].grad_fn()) continue;
      nodes.push_back(outputs[o].grad_fn());
      differentiated = true;
    }
  }
  KeptTensors kept;
  for (auto& [name, storage] : watched)
    if (storage.lock() && std::find(kept.found.begin(), kept.found.end(), name) == kept.found.end())
      kept.found.push_back(name);
  const auto saved = model::saved_arguments(one.target);
  const auto differentiable = [&](std::string_view name) {
    for (std::size_t i = 0; i < names.size(); ++i)
      if (names[i] == name && read.inputs[i].differentiable) return true;
    return false;
  };
  for (const model::Saved& entry : saved.value_or(std::span<const model::Saved>())) {
    const bool exists =
        std::any_of(watched.begin(), watched.end(), [&](const auto& w) { return w.first == entry.value; });
    if (differentiated && exists && (entry.when.empty() || differentiable(entry.when)))
      kept.listed.emplace_back(entry.value);
  }
  std::sort(kept.found.begin(), kept.found.end());
  std::sort(kept.listed.begin(), kept.listed.end());
  return kept;
}

}  // namespace coxswain::tests
