#include "worker/engine/group_experts.h"

#include <optional>
#include <utility>

namespace coxswain::worker {
namespace {

using model::Dim;
using model::ModelGraph;
using model::Op;
using model::ValueId;
using model::ValueRef;
using ValueList = std::vector<std::optional<ValueRef>>;

template <class T>
const T* find(const Op& op, std::string_view name) {
  for (const model::Argument& argument : op.arguments)
    if (argument.name == name) return std::get_if<T>(&argument.value);
  return nullptr;
}

struct Gather {
  ValueId table, indices;
};

/// `value` as rows of a table of matrices that one list of indices picks.
std::optional<Gather> gather_of(const ModelGraph& graph, ValueId value, bool grad_enabled) {
  const model::OpId producer = graph.values[value].producer;
  if (producer < 0) return std::nullopt;
  const Op& op = graph.ops[producer];
  if (op.target != "aten::index.Tensor" || op.grad_enabled != grad_enabled) return std::nullopt;
  const auto* self = find<ValueRef>(op, "self");
  const auto* indices = find<ValueList>(op, "indices");
  if (!self || !indices || indices->size() != 1 || !indices->front()) return std::nullopt;
  const model::Value &table = graph.values[self->id], &index = graph.values[indices->front()->id];
  if (table.dims.size() != 3 || index.dims.size() != 1 || index.dtype != DType::Int64) return std::nullopt;
  return Gather{self->id, indices->front()->id};
}

/// The product in the other form; absent where it is another one.
std::optional<Op> grouped(const ModelGraph& graph, const Op& op) {
  const auto *left = find<ValueRef>(op, "self"), *right = find<ValueRef>(op, "mat2");
  if (op.target != "aten::bmm" || !left || !right) return std::nullopt;
  const auto is_single = [&](ValueId value, std::size_t dim) { return graph.values[value].dims[dim] == Dim(1); };
  std::optional<Gather> gather;
  ValueId vectors = -1;
  const bool by_rows = !is_single(right->id, 2);
  if (!by_rows) {
    gather = gather_of(graph, left->id, op.grad_enabled);
    vectors = right->id;
  } else if (is_single(left->id, 1)) {
    gather = gather_of(graph, right->id, op.grad_enabled);
    vectors = left->id;
  }
  if (!gather) return std::nullopt;
  Op made = op;
  made.target = "coxswain::expert_bmm";
  made.arguments = {{"self", ValueRef{vectors}},
                    {"table", ValueRef{gather->table}},
                    {"indices", ValueRef{gather->indices}},
                    {"by_rows", by_rows}};
  return made;
}

}  // namespace

ModelGraph group_experts(ModelGraph graph) {
  for (Op& op : graph.ops)
    if (auto made = grouped(graph, op)) op = std::move(*made);
  return graph;
}

}  // namespace coxswain::worker
