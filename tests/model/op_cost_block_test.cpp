#include "model/load.h"
#include "model/op_cost.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

// Sizes by powers of ten, so that each digit of a sum names its term: one sample is 1 element, weights are n x 1.
struct Chain : RawGraph {
  ValueId narrow(const std::string& path, ValueId from, std::int64_t in) {
    return linear(path, from, parameter(path + ".narrow", {1, in}), {batch, Dim(1)});
  }
  ValueId widen(const std::string& path, ValueId from, std::int64_t out) {
    return linear(path, from, parameter(path + ".wide", {out, 1}), {batch, Dim(out)});
  }
  void finish(ValueId last) {
    loss(sum("", last));
    REQUIRE(finish_graph(graph).has_value());
  }
};

}  // namespace

TEST_CASE("a block's totals add up what it owns, keeps and sends") {
  Chain m;
  const ValueId x = m.input("x", {m.batch, Dim(1)});
  ValueId h = m.widen("h.0", x, 10);
  h = m.unary("h.0", "aten::tanh", h);
  h = m.linear("h.0", h, m.parameter("h.0.out", {100, 10}), {m.batch, Dim(100)});
  h = m.linear("h.1", h, m.parameter("h.1.in", {1000, 100}), {m.batch, Dim(1000)});
  h = m.unary("h.1", "aten::gelu", h);
  h = m.linear("h.1", h, m.parameter("h.1.out", {100, 1000}), {m.batch, Dim(100)});
  m.finish(h);
  REQUIRE(m.graph.num_blocks() == 4);
  const BlockTotals first = estimate_block(m.graph, 1, 1);
  CHECK(first.num_ops == 3);
  CHECK(first.parameter_elements == 10 + 1000);
  CHECK(first.parameter_bytes == Bytes(4 * 1010));
  CHECK(first.forward_flop.value == 2 * (10 + 1000));
  CHECK(first.matmul_flop == first.forward_flop);
  CHECK(first.backward_weight_flop.value == 2 * (10 + 1000));
  CHECK(first.backward_input_flop.value == 2 * 1000);  // x needs none
  CHECK(first.received_bytes == Bytes(0));
  CHECK(first.cut_bytes == Bytes(4 * 100));
  // x (an input of one element) and the tanh's result (10), which serves the last product too.
  CHECK(first.saved_bytes == Bytes(4 * (1 + 10)));

  const BlockTotals second = estimate_block(m.graph, 2, 1);
  CHECK(second.received_bytes == Bytes(4 * 100));
  // Received, gelu's input, gelu's output.
  CHECK(second.saved_bytes == Bytes(4 * (100 + 1000 + 1000)));
  const BlockTotals twice = estimate_block(m.graph, 2, 2);
  CHECK(twice.saved_bytes == second.saved_bytes * 2);
  CHECK(twice.forward_flop.value == 2 * second.forward_flop.value);
}

TEST_CASE("the transient peak counts temporaries, gradients on the way, and the block's parameter gradients") {
  Chain m;
  const ValueId x = m.input("x", {m.batch, Dim(1)});
  ValueId h = m.widen("h.0", x, 1);
  h = m.widen("h.1", h, 1000);
  h = m.unary("h.1", "aten::neg", h);
  h = m.unary("h.1", "aten::tanh", h);  // keeps its result; the two before it are temporaries
  h = m.narrow("h.1", h, 1000);
  h = m.widen("h.2", h, 1);
  m.finish(h);
  const BlockTotals block = estimate_block(m.graph, 2, 1);
  REQUIRE(m.graph.blocks[2].name == "h.1");
  CHECK(block.saved_bytes == Bytes(4 * (1 + 1000)));
  // Worst moment, while tanh goes backward: the kept result (1000), gradients of tanh's output and input (2000), and
  // the gradients of narrow's weight (1000) and of the block's result (1), which live until the block is done.
  CHECK(block.transient_bytes == Bytes(4 * (2000 + 1000 + 1)));
}

TEST_CASE("C15: between I and W lives what products with parameters took, and the gradients of what they gave") {
  Chain m;
  const ValueId x = m.input("x", {m.batch, Dim(1)});
  ValueId h = m.linear("h.0", x, m.parameter("h.0.out", {100, 1}), {m.batch, Dim(100)});
  h = m.linear("h.1", h, m.parameter("h.1.in", {1000, 100}), {m.batch, Dim(1000)});
  h = m.unary("h.1", "aten::gelu", h);
  h = m.linear("h.1", h, m.parameter("h.1.out", {10, 1000}), {m.batch, Dim(10)});
  m.finish(h);
  const BlockTotals block = estimate_block(m.graph, 2, 1);
  REQUIRE(m.graph.blocks[2].name == "h.1");
  CHECK(block.saved_bytes == Bytes(4 * (100 + 1000 + 1000)));  // received, gelu's input, gelu's result
  // Received, gelu's result; gradients of both products' results. gelu's input is freed by I.
  CHECK(block.owed_bytes == Bytes(4 * (100 + 1000 + 1000 + 10)));
  // The gradients of both weights, when the last product's result (10) and operand (1000) are freed.
  CHECK(block.weight_transient_bytes == Bytes(4 * (10 * 1000 + 1000 * 100 - 10 - 1000)));
  // All of the first block's backward is W's, since nothing before it takes a gradient: x and the gradient of its
  // result.
  CHECK(estimate_block(m.graph, 1, 1).owed_bytes == Bytes(4 * (1 + 100)));
}

TEST_CASE(
    "C3: under mixed precision what a float32 operator reads is copied, and its result is cast where it is used") {
  Chain m;
  const ValueId x = m.input("x", {m.batch, Dim(1)});
  ValueId h = m.linear("h.0", x, m.parameter("h.0.out", {100, 1}), {m.batch, Dim(100)});
  h = m.linear("h.1", h, m.parameter("h.1.in", {1000, 100}), {m.batch, Dim(1000)});
  h = m.op("h.1", "aten::pow.Tensor_Scalar", {{"self", ValueRef{h}}, {"exponent", 3.0}}, {m.batch, Dim(1000)});
  h = m.linear("h.1", h, m.parameter("h.1.out", {10, 1000}), {m.batch, Dim(10)});
  h = m.linear("h.2", h, m.parameter("h.2.in", {1000, 10}), {m.batch, Dim(1000)});
  h = m.unary("h.2", "aten::gelu", h);
  h = m.linear("h.2", h, m.parameter("h.2.out", {10, 1000}), {m.batch, Dim(10)});
  m.finish(h);
  const auto mixed = [&](int block) { return estimate_block(m.graph, block, 1, ExpertForm::Gathered, Width::Mixed); };
  CHECK(estimate_block(m.graph, 2, 1).saved_bytes == Bytes(4 * (100 + 1000 + 1000)));
  // Received in 16 bits; pow keeps a float32 copy of its input, the second product a 16-bit copy of pow's result.
  CHECK(mixed(2).saved_bytes == Bytes(2 * 100 + 4 * 1000 + 2 * 1000));
  CHECK(mixed(3).saved_bytes * 2 == estimate_block(m.graph, 3, 1).saved_bytes);
  CHECK(mixed(3).cut_bytes == Bytes(2 * 10));
}

TEST_CASE("the forward peak holds when nothing is trained before the block") {
  Chain m;
  const ValueId x = m.input("x", {m.batch, Dim(1000)});
  // Ten thousand elements live only between two operators without gradients.
  ValueId big =
      m.op("h.0", "aten::expand", {{"self", ValueRef{x}}, {"size", std::vector<Dim>{Dim(10), m.batch, Dim(1000)}}},
           {Dim(10), m.batch, Dim(1000)});
  big = m.op("h.0", "aten::exp", {{"self", ValueRef{big}}}, {Dim(10), m.batch, Dim(1000)});
  const ValueId small = m.op("h.0", "aten::sum.dim_IntList",
                             {{"self", ValueRef{big}}, {"dim", std::vector<Dim>{Dim(0), Dim(2)}}}, {m.batch});
  ValueId h = m.op("h.0", "aten::mul.Tensor",
                   {{"self", ValueRef{small}}, {"other", ValueRef{m.parameter("scale", {1})}}}, {m.batch});
  h = m.op("h.1", "aten::mul.Tensor", {{"self", ValueRef{h}}, {"other", ValueRef{m.parameter("scale1", {1})}}},
           {m.batch});
  m.finish(h);
  const BlockTotals block = estimate_block(m.graph, 1, 1);
  REQUIRE(m.graph.blocks[1].name == "h.0");
  CHECK(block.saved_bytes == Bytes(4));  // the factor of the parameter
  // 10000 + the sum (1), above the one element that is kept.
  CHECK(block.transient_bytes == Bytes(4 * 10000));
}

TEST_CASE("values of other blocks that no parameter influences are shared, not added per block") {
  Chain m;
  const std::vector<Dim> dims{m.batch, Dim(10)};
  const ValueId x = m.input("x", dims);
  const ValueId table = m.unary("", "aten::cos", x);
  ValueId h = x;
  for (const std::string path : {"h.0", "h.1"}) {
    h = m.linear(path, h, m.parameter(path + ".w", {10, 10}), dims);
    h = m.binary(path, "aten::mul.Tensor", h, table, dims);
  }
  m.finish(h);
  CHECK(estimate_block(m.graph, 1, 1).shared_bytes == Bytes(40));
  CHECK(estimate_block(m.graph, 2, 1).shared_bytes == Bytes(40));
  CHECK(estimate_block(m.graph, 2, 1).saved_bytes == Bytes(40));  // received alone
  CHECK(estimate_block(m.graph, 0, 1).saved_bytes == Bytes(0));
}

TEST_CASE("equal signatures mean equal totals") {
  const auto config = parse_json(
      R"({"model_type": "gpt2", "n_layer": 4, "n_embd": 64, "n_head": 4, "n_positions": 32, "vocab_size": 100})");
  const auto graph = build_from_config(config.value(), {});
  REQUIRE(graph.has_value());
  const BlockTotals first = estimate_block(*graph, 1, 3);
  for (int block = 2; block <= 4; ++block) {
    REQUIRE(graph->blocks[block].signature == graph->blocks[1].signature);
    const BlockTotals other = estimate_block(*graph, block, 3);
    CHECK(other.saved_bytes == first.saved_bytes);
    CHECK(other.transient_bytes == first.transient_bytes);
    CHECK(other.parameter_bytes == first.parameter_bytes);
    CHECK(other.forward_flop == first.forward_flop);
  }
}
