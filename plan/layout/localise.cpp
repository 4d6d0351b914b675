#include "plan/layout/local_graph.h"

namespace coxswain::plan {
namespace {

/// The graph with the batch bound: every size is a number.
model::ModelGraph bind_samples(const model::ModelGraph& graph, std::int64_t samples) {
  model::ModelGraph bound = graph;
  const model::Bindings bindings{{graph.batch_symbol, samples}};
  const auto bind = [&](model::Dim& dim) { dim = model::Dim(dim.evaluate(bindings)); };
  for (model::Value& value : bound.values)
    for (model::Dim& dim : value.dims) bind(dim);
  for (model::Op& op : bound.ops) {
    for (model::Argument& argument : op.arguments) {
      if (auto* dim = std::get_if<model::Dim>(&argument.value)) bind(*dim);
      if (auto* dims = std::get_if<std::vector<model::Dim>>(&argument.value))
        for (model::Dim& dim : *dims) bind(dim);
    }
  }
  bound.batch_symbol.clear();
  bound.static_batch = samples;
  return bound;
}

}  // namespace

std::vector<Cut> edge_cuts(const model::ModelGraph&, model::ValueId, std::int64_t, const Replica&, int) { return {}; }

// Every operator is replicated until the search over rules lands.
Result<LocalGraph> localise_stage(const model::ModelGraph& graph, const Stage&, const Replica& replica, int) {
  LocalGraph local;
  local.graph = bind_samples(graph, replica.samples);
  local.axes = mesh_axes(replica);
  for (std::size_t i = 0; i < graph.ops.size(); ++i) local.origin.push_back(static_cast<model::OpId>(i));
  local.cuts.resize(graph.values.size());
  local.gradient_axes.assign(graph.parameters.size(), (AxisSet{1} << local.axes.size()) - 1);
  return local;
}

}  // namespace coxswain::plan
