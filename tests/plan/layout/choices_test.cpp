#include "plan/layout/choices.h"

#include <algorithm>

#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using coxswain::tests::LayoutGraph;

namespace {

bool has_read(const OpChoices& op, std::size_t read, const Form& form) {
  return std::any_of(op.choices.begin(), op.choices.end(), [&](const Choice& c) { return c.reads[read] == form; });
}

}  // namespace

TEST_CASE("a split spreads from a view to the projection behind it", "[choices_test]") {
  LayoutGraph builder;
  const auto input = builder.value({kSamples, 16}), weight = builder.parameter({24, 16});
  const auto fused = builder.linear(input, weight, {kSamples, 24});
  const auto heads =
      builder.op("aten::view", {{"self", model::ValueRef{fused}}, {"size", std::vector<model::Dim>{kSamples, 3, 4, 2}}},
                 {kSamples, 3, 4, 2});
  const auto loss = builder.op("aten::sum", {{"self", model::ValueRef{heads}}, {"dtype", model::None{}}}, {});
  std::vector<int> edge_dims;
  auto& graph = builder.finish(loss);
  const auto choices = list_choices(graph, {0, 1}, tests::tensor_step(graph, 2, edge_dims));
  // Rows of the weight are (3 heads 2): heads, the strided middle, may be split.
  CHECK(has_read(choices.at(0), 1, shard({0, 3, 4, 2})));
  CHECK(has_read(choices.at(0), 1, shard({0, 1, 24, 1})));
  // Samples never are: replicas split them.
  CHECK_FALSE(has_read(choices.at(0), 0, shard({0, 1, kSamples, 1})));
}

TEST_CASE("a context axis splits no parameter", "[choices_test]") {
  LayoutGraph builder;
  const auto input = builder.value({kSamples, 8, 16}), weight = builder.parameter({24, 16});
  const auto result = builder.linear(input, weight, {kSamples, 8, 24});
  std::vector<int> edge_dims;
  auto& graph = builder.finish(result);
  MeshStep step = tests::tensor_step(graph, 2, edge_dims);
  step.kind = AxisKind::Context;
  const auto choices = list_choices(graph, {0, 1}, step);
  CHECK(has_read(choices.at(0), 0, shard({1, 1, 8, 1})));
  for (const Choice& choice : choices.at(0).choices) CHECK(choice.reads[1].kind != Form::Kind::Shard);
}

TEST_CASE("members of several runs split no rows that an index counts from the first", "[choices_test]") {
  LayoutGraph builder;
  const auto table = builder.value({8, 16}), index = builder.value({kSamples, 6}, false);
  const auto weight = builder.parameter({8, 16});
  const auto rows = builder.op(
      "aten::add.Tensor",
      {{"self", model::ValueRef{table}}, {"other", model::ValueRef{weight}}, {"alpha", model::Dim(1)}}, {8, 16});
  const auto result = builder.op("aten::embedding",
                                 {{"weight", model::ValueRef{rows}},
                                  {"indices", model::ValueRef{index}},
                                  {"padding_idx", model::Dim(-1)},
                                  {"scale_grad_by_freq", false},
                                  {"sparse", false}},
                                 {kSamples, 6, 16});
  std::vector<int> edge_dims;
  auto& graph = builder.finish(result);
  MeshStep step = tests::tensor_step(graph, 2, edge_dims);
  CHECK(has_read(list_choices(graph, {0, 1}, step).at(1), 0, shard({0, 1, 8, 1})));
  step.runs = 2;
  CHECK_FALSE(has_read(list_choices(graph, {0, 1}, step).at(1), 0, shard({0, 1, 8, 1})));
  CHECK(has_read(list_choices(graph, {0, 1}, step).at(1), 1, shard({1, 1, 6, 1})));
}

TEST_CASE("attention with a learned mask goes around no ring", "[choices_test]") {
  for (const bool learned : {false, true}) {
    LayoutGraph builder;
    const auto query = builder.value({kSamples, 4, 8, 16}), mask = builder.value({1, 4, 8, 8}, learned);
    const auto result = builder.op("aten::scaled_dot_product_attention",
                                   {{"query", model::ValueRef{query}},
                                    {"key", model::ValueRef{query}},
                                    {"value", model::ValueRef{query}},
                                    {"attn_mask", model::ValueRef{mask}},
                                    {"dropout_p", 0.0},
                                    {"is_causal", false},
                                    {"scale", model::None{}},
                                    {"enable_gqa", false}},
                                   {kSamples, 4, 8, 16});
    std::vector<int> edge_dims;
    auto& graph = builder.finish(result);
    MeshStep step = tests::tensor_step(graph, 2, edge_dims);
    step.kind = AxisKind::Context;
    const std::vector<Choice> choices = list_choices(graph, {0, 1}, step).at(0).choices;
    const auto rings = std::count_if(choices.begin(), choices.end(),
                                     [](const Choice& c) { return c.kind == Choice::Kind::RingAttention; });
    CHECK(rings == (learned ? 0 : 1));
  }
}

TEST_CASE("an operator without a rule is replicated", "[choices_test]") {
  LayoutGraph builder;
  const auto input = builder.value({kSamples, 16});
  const auto result = builder.op("aten::no_such_operator", {{"self", model::ValueRef{input}}}, {kSamples, 16});
  std::vector<int> edge_dims;
  auto& graph = builder.finish(result);
  const auto choices = list_choices(graph, {0, 1}, tests::tensor_step(graph, 2, edge_dims));
  REQUIRE(choices.at(0).choices.size() == 1);
  CHECK(choices.at(0).choices[0].reads[0] == replicate());
}

TEST_CASE("values cross between blocks along the first dim behind the samples that the mesh can split",
          "[choices_test]") {
  const auto dim = [](const std::vector<std::int64_t>& sizes, int tensor, int context = 1) {
    Replica replica;
    replica.tensor = tensor;
    replica.context = context;
    return edge_dim(sizes, replica);
  };
  CHECK(dim({kSamples, 6, 8}, 2) == 1);
  CHECK(dim({kSamples, 6, 8}, 4) == 2);
  CHECK(dim({kSamples, 6, 9}, 4) == -1);
  CHECK(dim({8}, 2) == -1);
  // One axis may leave unequal parts; two would have to cut parts that differ.
  CHECK(dim({kSamples, 7, 8}, 1, 3) == 1);
  CHECK(dim({kSamples, 7, 8}, 2, 2) == 2);
}
