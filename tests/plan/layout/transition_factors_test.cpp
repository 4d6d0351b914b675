#include "plan/layout/transition_factors.h"

#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using coxswain::tests::LayoutGraph;
using model::Dim;

TEST_CASE("a gather leaves other dims free, and the rows that it moves whole", "[transition_factors_test]") {
  LayoutGraph builder;
  const auto input = builder.value({6, 3 * 4 * 5});
  builder.op("coxswain::all_gather",
             {{"self", model::ValueRef{input}},
              {"axes", Dim(1)},
              {"dim", Dim(1)},
              {"outer", Dim(3)},
              {"inner", Dim(5)},
              {"runs", std::vector<Dim>{0, 4, 4, 4}}},
             {6, 3 * 8 * 5});
  const auto factors = bind_transition(builder.graph, builder.graph.ops[0]);
  REQUIRE(factors);
  const auto kind = [&](const std::vector<int>& dim, std::size_t i) {
    return factors->factors[static_cast<std::size_t>(dim[i])].kind;
  };
  const auto& in = factors->inputs[0].dims;
  const auto& out = factors->outputs[0].dims;
  REQUIRE(in[1].size() == 3);
  CHECK(in[0] == out[0]);
  CHECK(kind(in[0], 0) == FactorKind::Free);
  CHECK(in[1][0] == out[1][0]);
  CHECK(in[1][2] == out[1][2]);
  CHECK(kind(in[1], 0) == FactorKind::Free);
  CHECK(kind(in[1], 1) == FactorKind::Whole);
  CHECK(kind(out[1], 1) == FactorKind::Whole);
  // Splitting the outer part makes `outer` smaller.
  const Part part{in[1][0], 0, 1};
  const model::Op local = localise(builder.graph.ops[0], *factors, std::span(&part, 1));
  CHECK(std::get<Dim>(local.arguments[3].value) == Dim(1));
  CHECK(std::get<Dim>(local.arguments[4].value) == Dim(5));
}

TEST_CASE("other operators have no factors here", "[transition_factors_test]") {
  LayoutGraph builder;
  builder.relu(builder.value({2, 2}), {2, 2});
  CHECK_FALSE(bind_transition(builder.graph, builder.graph.ops[0]));
}
