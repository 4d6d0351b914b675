#include "model/finish.h"

#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

TEST_CASE("operators that the loss does not need disappear") {
  RawGraph raw;
  const ValueId x = raw.input("x", {raw.batch, Dim(4)});
  const ValueId w = raw.parameter("w", {4, 4});
  const ValueId kept = raw.linear("", x, w, {raw.batch, Dim(4)});
  raw.unary("", "aten::tanh", kept);  // nobody reads it
  raw.loss(raw.sum("", kept));
  REQUIRE(finish_graph(raw.graph).has_value());
  REQUIRE(raw.graph.ops.size() == 2);
  CHECK(raw.graph.ops[0].target == "aten::linear");
  CHECK(raw.graph.ops[1].target == "aten::sum");
  CHECK(raw.graph.values[kept].producer == 0);
}

TEST_CASE("dependence on parameters and gradients are told apart") {
  RawGraph raw;
  const std::vector<Dim> dims{raw.batch, Dim(4)};
  const ValueId x = raw.input("x", dims);
  const ValueId trained = raw.parameter("trained", {4, 4}), frozen = raw.parameter("frozen", {4, 4}, false);
  const ValueId from_input = raw.unary("", "aten::cos", x);
  const ValueId from_frozen = raw.linear("", from_input, frozen, dims);
  const ValueId from_trained = raw.linear("", from_frozen, trained, dims);
  const ValueId cut_off = raw.op("", "aten::sin", {{"self", ValueRef{from_trained}}}, dims, DType::Float32, false);
  const ValueId compared =
      raw.op("", "aten::gt.Scalar", {{"self", ValueRef{from_trained}}, {"other", 0.0}}, dims, DType::Bool);
  const ValueId chosen =
      raw.op("", "aten::where.self",
             {{"condition", ValueRef{compared}}, {"self", ValueRef{from_trained}}, {"other", ValueRef{cut_off}}}, dims);
  raw.loss(raw.sum("", chosen));
  REQUIRE(finish_graph(raw.graph).has_value());
  const auto& values = raw.graph.values;
  CHECK_FALSE(values[from_input].depends_on_parameter);
  CHECK(values[from_frozen].depends_on_parameter);  // another stage could not recompute it
  CHECK_FALSE(values[from_frozen].requires_grad);
  CHECK(values[from_trained].requires_grad);
  CHECK(values[cut_off].depends_on_parameter);
  CHECK_FALSE(values[cut_off].requires_grad);
  CHECK(values[compared].depends_on_parameter);
  CHECK_FALSE(values[compared].requires_grad);
  CHECK(values[chosen].requires_grad);
}

TEST_CASE("a graph without loss is refused") {
  RawGraph raw;
  const ValueId x = raw.input("x", {raw.batch});
  raw.unary("", "aten::tanh", x);
  const auto result = finish_graph(raw.graph);
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().code == ErrorCode::InvalidArgument);
  CHECK(result.error().message == "the model returns no loss");
}

TEST_CASE("every value that is used too early is named") {
  RawGraph raw;
  const ValueId x = raw.input("x", {raw.batch});
  const ValueId nowhere = add_value(raw.graph, "nowhere", {raw.batch}, DType::Float32);
  const ValueId lost = add_value(raw.graph, "lost", {raw.batch}, DType::Float32);
  const ValueId sum = raw.binary("", "aten::add.Tensor", x, nowhere, {raw.batch});
  raw.loss(raw.sum("", raw.binary("", "aten::mul.Tensor", sum, lost, {raw.batch})));
  const auto result = finish_graph(raw.graph);
  REQUIRE_FALSE(result.has_value());
  REQUIRE(result.error().details.size() == 2);
  CHECK(result.error().details[0].got == "nowhere");
  CHECK(result.error().details[1].got == "lost");
}
