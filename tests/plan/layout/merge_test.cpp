#include "plan/layout/rewrite.h"
#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;
using coxswain::tests::LayoutGraph;
using model::Dim;

namespace {

using Dims = std::vector<Dim>;

LocalGraph local_of(LayoutGraph& builder, model::ValueId result) {
  LocalGraph local;
  local.graph = builder.finish(result);
  local.axes = {{AxisKind::Tensor, 2, 2}, {AxisKind::Tensor, 2, 1}};
  local.origin.assign(local.graph.ops.size(), -1);
  local.cuts.resize(local.graph.values.size());
  return local;
}

}  // namespace

TEST_CASE("sums over two axes become one", "[merge_test]") {
  LayoutGraph builder;
  const auto input = builder.value({4, 8});
  const auto once = builder.op("coxswain::all_reduce", {{"self", model::ValueRef{input}}, {"axes", Dim(1)}}, {4, 8});
  const auto twice = builder.op("coxswain::all_reduce", {{"self", model::ValueRef{once}}, {"axes", Dim(2)}}, {4, 8});
  LocalGraph local = local_of(builder, twice);
  merge_transitions(local);
  REQUIRE(local.graph.ops.size() == 1);
  CHECK(std::get<Dim>(local.graph.ops[0].arguments[1].value) == Dim(3));
  CHECK(std::get<model::ValueRef>(local.graph.ops[0].arguments[0].value).id == input);
  CHECK(local.graph.blocks[0].end_op == 1);
}

TEST_CASE("a gather of parts of parts becomes one in the order of the positions", "[merge_test]") {
  const auto gather = [](model::ValueId of, int axes, const Dims& runs) {
    return std::vector<model::Argument>{{"self", model::ValueRef{of}},
                                        {"axes", Dim(axes)},
                                        {"dim", Dim(1)},
                                        {"outer", Dim(1)},
                                        {"inner", Dim(2)},
                                        {"runs", runs}};
  };
  for (const bool even : {true, false}) {
    LayoutGraph builder;
    const auto input = builder.value({4, 4});
    // Rows of 2: the outer axis cuts 7 or 8 rows in two, the inner one each half.
    const auto half = builder.op("coxswain::all_gather", gather(input, 2, Dims{0, 2, 2, 2}), {4, 8});
    const auto all = builder.op("coxswain::all_gather", gather(half, 1, even ? Dims{0, 4, 4, 4} : Dims{0, 4, 4, 3}),
                                {4, even ? 16 : 14});
    LocalGraph local = local_of(builder, all);
    merge_transitions(local);
    if (!even) {
      CHECK(local.graph.ops.size() == 2);
      continue;
    }
    REQUIRE(local.graph.ops.size() == 1);
    CHECK(std::get<Dims>(local.graph.ops[0].arguments[5].value) == Dims{0, 2, 2, 2, 4, 2, 6, 2});
  }
}

TEST_CASE("a gather of parts of two runs names two runs a position", "[merge_test]") {
  LayoutGraph builder;
  const auto gather = [](model::ValueId of, int axes, const Dims& runs) {
    return std::vector<model::Argument>{{"self", model::ValueRef{of}},
                                        {"axes", Dim(axes)},
                                        {"dim", Dim(1)},
                                        {"outer", Dim(1)},
                                        {"inner", Dim(1)},
                                        {"runs", runs}};
  };
  // 12 rows in pieces of 3: 0 and 3, 1 and 2; then the 6 of each in parts of 4 and 2.
  const auto input = builder.value({4, 4});
  const auto half = builder.op("coxswain::all_gather", gather(input, 2, Dims{0, 4, 4, 2}), {4, 6});
  const auto all = builder.op("coxswain::all_gather", gather(half, 1, Dims{0, 3, 9, 3, 3, 3, 6, 3}), {4, 12});
  LocalGraph local = local_of(builder, all);
  merge_transitions(local);
  REQUIRE(local.graph.ops.size() == 1);
  CHECK(std::get<Dims>(local.graph.ops[0].arguments[5].value) ==
        Dims{0, 3, 9, 1, 10, 2, 12, 0, 3, 3, 6, 1, 7, 2, 9, 0});
}

TEST_CASE("a value that someone else reads stays", "[merge_test]") {
  LayoutGraph builder;
  const auto input = builder.value({4, 8});
  const auto once = builder.op("coxswain::all_reduce", {{"self", model::ValueRef{input}}, {"axes", Dim(1)}}, {4, 8});
  const auto twice = builder.op("coxswain::all_reduce", {{"self", model::ValueRef{once}}, {"axes", Dim(2)}}, {4, 8});
  builder.relu(once, {4, 8});
  LocalGraph local = local_of(builder, twice);
  merge_transitions(local);
  CHECK(local.graph.ops.size() == 3);
}
