#pragma once
// Small graphs for layout tests: one block, static sizes, float32.
#include <string>
#include <vector>

#include "model/model_graph.h"
#include "plan/layout/choices.h"

namespace coxswain::tests {

class LayoutGraph {
 public:
  LayoutGraph() {
    graph.static_batch = plan::kSamples;
    graph.batch_symbol.clear();
  }

  model::ValueId value(const std::vector<std::int64_t>& sizes, bool influenced = true) {
    model::Value value;
    value.name = "v" + std::to_string(graph.values.size());
    for (const std::int64_t size : sizes) value.dims.emplace_back(size);
    value.depends_on_parameter = value.requires_grad = influenced;
    graph.values.push_back(value);
    return static_cast<model::ValueId>(graph.values.size()) - 1;
  }
  model::ValueId parameter(const std::vector<std::int64_t>& sizes) {
    model::Parameter parameter;
    parameter.value = value(sizes);
    parameter.name = "p" + std::to_string(graph.parameters.size());
    parameter.dims = sizes;
    graph.parameters.push_back(parameter);
    return parameter.value;
  }
  model::ValueId op(const std::string& target, std::vector<model::Argument> arguments,
                    const std::vector<std::int64_t>& sizes) {
    model::Op op;
    op.target = target;
    op.arguments = std::move(arguments);
    op.outputs = {value(sizes)};
    graph.values.back().producer = static_cast<model::OpId>(graph.ops.size());
    graph.ops.push_back(op);
    return op.outputs[0];
  }
  model::ValueId linear(model::ValueId input, model::ValueId weight, const std::vector<std::int64_t>& sizes) {
    return op("aten::linear",
              {{"input", model::ValueRef{input}}, {"weight", model::ValueRef{weight}}, {"bias", model::None{}}}, sizes);
  }
  model::ValueId relu(model::ValueId input, const std::vector<std::int64_t>& sizes) {
    return op("aten::relu", {{"self", model::ValueRef{input}}}, sizes);
  }
  /// All operators as one block; `result` is the loss' numerator.
  model::ModelGraph& finish(model::ValueId result) {
    graph.blocks = {{"model", 0, static_cast<model::OpId>(graph.ops.size()), "s"}};
    graph.loss = {{1.0, result, std::nullopt}};
    return graph;
  }

  model::ModelGraph graph;
};

/// A step over one tensor axis of `size`; `edge_dims` lives as long as the result.
inline plan::MeshStep tensor_step(const model::ModelGraph& graph, int size, std::vector<int>& edge_dims) {
  plan::Replica replica;
  replica.tensor = size;
  edge_dims = plan::find_edge_dims(graph, replica);
  plan::MeshStep step;
  step.axes = 1;
  step.size = size;
  step.edge_dims = &edge_dims;
  return step;
}

}  // namespace coxswain::tests
