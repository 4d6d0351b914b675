#include "plan/experts.h"

#include "model/load.h"
#include "plan/derive.h"
#include "tests/support/graph_builder.h"
#include "tests/support/mixture_graph.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Stage make_stage(const model::ModelGraph& graph, int replicas, int expert, int context = 1) {
  Stage stage;
  stage.end_block = graph.num_blocks();
  stage.replicas.resize(static_cast<std::size_t>(replicas));
  for (Replica& replica : stage.replicas) {
    replica.expert = expert;
    replica.context = context;
    replica.devices.resize(static_cast<std::size_t>(context));
  }
  return stage;
}

std::vector<std::string> tables_of(const model::ModelGraph& graph) {
  std::vector<std::string> names;
  const std::vector<std::int64_t> counts = expert_counts(graph);
  for (std::size_t p = 0; p < counts.size(); ++p)
    if (counts[p] > 0) names.push_back(graph.parameters[p].name + " " + std::to_string(counts[p]));
  return names;
}

}  // namespace

TEST_CASE("tables of experts are what rows of a router read, and nothing else reads", "[experts]") {
  model::ModelGraph graph = make_mixture_graph();
  CHECK(tables_of(graph) == std::vector<std::string>{
                                "model.layers.0.mlp.experts.gate_up_proj 6", "model.layers.0.mlp.experts.down_proj 6",
                                "model.layers.1.mlp.experts.gate_up_proj 6", "model.layers.1.mlp.experts.down_proj 6"});
  CHECK(tables_of(make_chain_graph()).empty());
  // Another reader needs all of it.
  model::Op other;
  other.target = "aten::sum";
  other.arguments = {{"self", model::ValueRef{graph.parameters[1].value}}};
  for (const model::Parameter& parameter : graph.parameters)
    if (parameter.name == "model.layers.0.mlp.experts.down_proj")
      other.arguments[0].value = model::ValueRef{parameter.value};
  graph.ops.push_back(other);
  CHECK(tables_of(graph).size() == 3);
}

TEST_CASE("rows choose experts once for each router, whatever tables they read then", "[experts]") {
  const model::ModelGraph graph = make_mixture_graph();
  const std::vector<ExpertChoice> choices = expert_choices(graph);
  REQUIRE(choices.size() == 2);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    CHECK(choices[layer].block == static_cast<int>(layer) + 1);
    CHECK(choices[layer].experts == 6);
    // Two experts for each of 8 tokens of a sample.
    const model::Value& indices = graph.values[static_cast<std::size_t>(choices[layer].indices)];
    CHECK(indices.dims == std::vector<model::Dim>{model::Dim(16) * model::Dim::symbol("batch")});
  }
  CHECK(expert_choices(make_chain_graph()).empty());
}

TEST_CASE("replicas in a row hold all experts together, the others the same again", "[experts]") {
  const model::ModelGraph graph = make_mixture_graph();
  const auto uses = ParameterUses(graph).blocks;
  const auto counts = expert_counts(graph);
  const Stage four = make_stage(graph, 4, 2);
  CHECK(expert_place(four, 0) == ExpertPlace{2, 0});
  CHECK(expert_place(four, 3) == ExpertPlace{2, 1});
  CHECK(num_expert_holders(four) == 2);
  CHECK(reduced_expert_blocks(four, counts, uses) == std::vector<int>{1, 2});
  CHECK(num_expert_holders(make_stage(graph, 2, 2, 3)) == 3);
  // One holder each: nothing to add up.
  CHECK(reduced_expert_blocks(make_stage(graph, 4, 4), counts, uses).empty());
  CHECK(reduced_expert_blocks(make_stage(graph, 4, 1), counts, uses).empty());
  CHECK_FALSE(has_expert_axis(make_stage(graph, 4, 1)));
  CHECK(has_expert_axis(four));
}

}  // namespace coxswain::plan
