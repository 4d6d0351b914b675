#include "plan/layout/rewrite.h"

#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using coxswain::tests::LayoutGraph;

namespace {

struct Rewritten {
  LayoutGraph builder;
  model::ValueId first = -1, second = -1;
  LocalGraph local;
};

Rewritten column_then_row(int index) {
  Rewritten result;
  LayoutGraph& builder = result.builder;
  const auto input = builder.value({kSamples, 16}, false);
  result.first = builder.parameter({7, 16});
  result.second = builder.parameter({16, 7});
  const auto hidden = builder.relu(builder.linear(input, result.first, {kSamples, 7}), {kSamples, 7});
  auto& graph = builder.finish(builder.linear(hidden, result.second, {kSamples, 16}));
  std::vector<int> edge_dims;
  const MeshStep step = tests::tensor_step(graph, 2, edge_dims);
  std::map<model::ValueId, Form> stored;
  const RunLayout found = find_layout(graph, {0, 1}, step, list_choices(graph, {0, 1}, step), stored);
  LocalGraph whole;
  whole.graph = graph;
  whole.axes = {{AxisKind::Tensor, 2, 1}};
  for (std::size_t i = 0; i < graph.ops.size(); ++i) whole.origin.push_back(static_cast<model::OpId>(i));
  whole.cuts.resize(graph.values.size());
  whole.gradient_axes.assign(graph.parameters.size(), 1);
  result.local = rewrite(whole, step, index, {{{0, 1}, found.chosen}}, stored);
  return result;
}

}  // namespace

TEST_CASE("each member has its part, the same operators, and one sum at the end", "[rewrite_test]") {
  for (const int index : {0, 1}) {
    const Rewritten made = column_then_row(index);
    const model::ModelGraph& graph = made.local.graph;
    CHECK(graph.parameters[0].dims == std::vector<std::int64_t>{index == 0 ? 4 : 3, 16});
    CHECK(graph.parameters[1].dims == std::vector<std::int64_t>{16, index == 0 ? 4 : 3});
    CHECK(made.local.gradient_axes == std::vector<AxisSet>{0, 0});
    const Cut expected{0, 1, 7, 1, 1, {{index == 0 ? 0 : 4, index == 0 ? 4 : 3}}};
    CHECK(made.local.cuts[static_cast<std::size_t>(made.first)] == std::vector<Cut>{expected});
    std::vector<std::string> targets;
    for (const model::Op& op : graph.ops) targets.push_back(op.target);
    CHECK(targets == std::vector<std::string>{"aten::linear", "aten::relu", "aten::linear", "coxswain::all_reduce"});
    CHECK(made.local.origin == std::vector<model::OpId>{0, 1, 2, -1});
    // The numerator keeps its id: it is what the sum makes.
    CHECK(graph.ops.back().outputs[0] == graph.loss[0].numerator);
    CHECK(graph.blocks[0].end_op == 4);
  }
}
