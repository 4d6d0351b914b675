#pragma once
// Small readers of an operator's tensors, for what a plan derives from a graph. Threads: pure.
#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "model/model_graph.h"

namespace coxswain::plan {

/// Calls `visit(ValueId)` for every tensor that `op` reads, in argument order; a value may occur twice.
template <class Visit>
void visit_operands(const model::Op& op, Visit&& visit) {
  for (const model::Argument& argument : op.arguments) {
    if (const auto* one = std::get_if<model::ValueRef>(&argument.value)) {
      visit(one->id);
    } else if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value)) {
      for (const auto& item : *list)
        if (item) visit(item->id);
    }
  }
}

/// The same with references that may be changed.
template <class Visit>
void replace_operands(model::Op& op, Visit&& visit) {
  for (model::Argument& argument : op.arguments) {
    if (auto* one = std::get_if<model::ValueRef>(&argument.value)) {
      visit(one->id);
    } else if (auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value)) {
      for (auto& item : *list)
        if (item) visit(item->id);
    }
  }
}

/// "aten::add.Tensor" -> "aten::add".
[[nodiscard]] inline std::string_view without_overload(std::string_view target) {
  return target.substr(0, target.find('.'));
}

}  // namespace coxswain::plan
