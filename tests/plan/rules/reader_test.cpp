#include "plan/rules/reader.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

TEST_CASE("arguments are read by name, dims with the batch bound") {
  model::ModelGraph graph;
  const model::Dim batch = model::Dim::symbol("batch");
  graph.values = {{"x", {batch, 3}, DType::Float32}, {"i", {5}, DType::Int64}, {"y", {batch * 2}, DType::Float32}};
  model::Op op;
  op.target = "aten::fake.overload";
  op.arguments = {{"x", model::ValueRef{0}},
                  {"list", std::vector<std::optional<model::ValueRef>>{std::nullopt, model::ValueRef{1}}},
                  {"size", std::vector<model::Dim>{batch, 6}},
                  {"dim", model::Dim(-1)},
                  {"flag", true},
                  {"text", std::string("mean")},
                  {"nothing", model::None{}}};
  op.outputs = {-1, 2};
  const OpReader reader(graph, op, 4);
  CHECK(reader.is_overload("overload"));
  CHECK(reader.sizes(0) == Sizes{4, 3});
  CHECK(reader.input("list") == 1);
  CHECK(reader.input_list("list") == std::vector<int>{-1, 1});
  CHECK(reader.integers("size") == Sizes{4, 6});
  CHECK(reader.integers("dim") == Sizes{-1});
  CHECK(reader.integer("dim") == -1);
  CHECK(reader.flag("flag"));
  CHECK_FALSE(reader.flag("missing"));
  CHECK(reader.text("text") == "mean");
  CHECK(reader.is_none("nothing"));
  CHECK(reader.is_none("missing"));
  CHECK(reader.is_floating(reader.inputs()[0]));
  CHECK_FALSE(reader.is_floating(reader.inputs()[1]));
  REQUIRE(reader.outputs().size() == 1);
  CHECK(reader.outputs()[0].argument == 1);
  CHECK(reader.outputs()[0].sizes == Sizes{8});
}
