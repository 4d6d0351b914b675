#pragma once
// Writes small operator lists for the tests of model/: shapes are given by hand, defaults come from the schema table.
#include <string>
#include <utility>
#include <vector>

#include "model/finish.h"
#include "model/pt2_ops.h"

namespace coxswain::model {

struct RawGraph {
  ModelGraph graph;
  Dim batch = Dim::symbol("batch");

  ValueId input(const std::string& name, std::vector<Dim> dims, DType dtype = DType::Float32) {
    const ValueId value = add_value(graph, name, std::move(dims), dtype);
    graph.inputs.push_back({name, value, 0});
    return value;
  }
  ValueId parameter(const std::string& name, std::vector<std::int64_t> dims, bool trainable = true) {
    const ValueId value = add_value(graph, name, std::vector<Dim>(dims.begin(), dims.end()), DType::Float32);
    Parameter made;
    made.name = name;
    made.value = value;
    made.dims = std::move(dims);
    made.trainable = trainable;
    graph.parameters.push_back(std::move(made));
    return value;
  }
  ValueId op(const std::string& path, std::string_view target, NamedArguments given, std::vector<Dim> dims,
             DType dtype = DType::Float32, bool grad = true) {
    const Origin origin{path, "model.py:" + std::to_string(graph.ops.size() + 1), grad};
    return emit_op(graph, target, given, origin, "v" + std::to_string(graph.values.size()), std::move(dims), dtype);
  }
  /// An operator on one tensor called "self", shape kept.
  ValueId unary(const std::string& path, std::string_view target, ValueId x) {
    return op(path, target, {{"self", ValueRef{x}}}, graph.values[x].dims, graph.values[x].dtype);
  }
  ValueId binary(const std::string& path, std::string_view target, ValueId a, ValueId b, std::vector<Dim> dims) {
    return op(path, target, {{"self", ValueRef{a}}, {"other", ValueRef{b}}}, std::move(dims));
  }
  ValueId linear(const std::string& path, ValueId x, ValueId weight, std::vector<Dim> dims) {
    return op(path, "aten::linear", {{"input", ValueRef{x}}, {"weight", ValueRef{weight}}}, std::move(dims));
  }
  ValueId sum(const std::string& path, ValueId x) { return op(path, "aten::sum", {{"self", ValueRef{x}}}, {}); }
  void loss(ValueId numerator) { graph.loss.push_back({1.0, numerator, std::nullopt}); }

  [[nodiscard]] const Op& producer(ValueId value) const { return graph.ops[graph.values[value].producer]; }
};

}  // namespace coxswain::model
