#include "plan/layout/context_runs.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace coxswain::plan {
namespace {

using model::ModelGraph;
using model::Op;
using model::ValueId;

const model::Argument::Variant* find(const Op& op, std::string_view name) {
  const auto at = std::find_if(op.arguments.begin(), op.arguments.end(),
                               [&](const auto& argument) { return argument.name == name; });
  return at == op.arguments.end() ? nullptr : &at->value;
}

/// An order of positions, or one side of a diagonal.
bool is_order(std::string_view target) {
  static constexpr std::array<std::string_view, 6> kOrders{"aten::le", "aten::lt",   "aten::ge",
                                                           "aten::gt", "aten::tril", "aten::triu"};
  return std::find(kOrders.begin(), kOrders.end(), target.substr(0, target.find('.'))) != kOrders.end();
}

/// Differs by row and by column.
bool is_matrix(const model::Value& value) {
  const auto is_one = [](const model::Dim& dim) { return dim.is_constant() && dim.constant() == 1; };
  const std::size_t rank = value.dims.size();
  return rank >= 2 && !is_one(value.dims[rank - 1]) && !is_one(value.dims[rank - 2]);
}

bool compares_positions(const ModelGraph& graph, ValueId mask) {
  std::vector<char> seen(graph.values.size(), 0);
  std::vector<ValueId> open{mask};
  while (!open.empty()) {
    const ValueId v = open.back();
    open.pop_back();
    if (seen[static_cast<std::size_t>(v)] != 0) continue;
    seen[static_cast<std::size_t>(v)] = 1;
    const model::Value& value = graph.values[static_cast<std::size_t>(v)];
    if (value.producer < 0) continue;
    const Op& op = graph.ops[static_cast<std::size_t>(value.producer)];
    if (is_order(op.target) && is_matrix(value)) return true;
    for (const model::Argument& argument : op.arguments) {
      if (const auto* one = std::get_if<model::ValueRef>(&argument.value)) open.push_back(one->id);
      if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&argument.value))
        for (const auto& element : *list)
          if (element) open.push_back(element->id);
    }
  }
  return false;
}

bool hides_what_follows(const ModelGraph& graph, const Op& op) {
  if (op.target != "aten::scaled_dot_product_attention") return false;
  const auto* causal = find(op, "is_causal");
  if (causal != nullptr && std::holds_alternative<bool>(*causal) && std::get<bool>(*causal)) return true;
  const auto* mask = find(op, "attn_mask");
  if (mask == nullptr || !std::holds_alternative<model::ValueRef>(*mask)) return false;
  const ValueId id = std::get<model::ValueRef>(*mask).id;
  return !graph.values[static_cast<std::size_t>(id)].depends_on_parameter && compares_positions(graph, id);
}

}  // namespace

int context_runs(const ModelGraph& graph) {
  return std::any_of(graph.ops.begin(), graph.ops.end(), [&](const Op& op) { return hides_what_follows(graph, op); })
             ? 2
             : 1;
}

}  // namespace coxswain::plan
