#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

std::vector<std::string> block_names(const ModelGraph& graph) {
  std::vector<std::string> names;
  for (const Block& block : graph.blocks) names.push_back(block.name);
  return names;
}

struct Chain : RawGraph {
  std::vector<Dim> dims{batch, Dim(4)};
  ValueId x = input("x", dims);
  ValueId layer(const std::string& path, ValueId from) {
    return linear(path, from, parameter(path + ".weight", {4, 4}), dims);
  }
};

}  // namespace

TEST_CASE("each child of the outermost repeated module is a block") {
  Chain raw;
  ValueId h = raw.layer("model.embed", raw.x);
  h = raw.layer("model.layers.0.mlp.experts.0", h);
  h = raw.layer("model.layers.0.mlp.experts.1", h);
  h = raw.layer("model.layers.1.mlp.experts.0", h);
  h = raw.layer("model.layers.10.mlp.experts.0", h);
  raw.loss(raw.sum("", raw.layer("model.norm", h)));
  REQUIRE(finish_graph(raw.graph).has_value());
  CHECK(block_names(raw.graph) ==
        std::vector<std::string>{"prologue", "model.layers.0", "model.layers.1", "model.layers.10", "epilogue"});
  CHECK(raw.graph.blocks[1].first_op == 1);
  CHECK(raw.graph.blocks[1].end_op == 3);
  CHECK(raw.graph.blocks[4].end_op == 7);
}

TEST_CASE("a wrapper with one child is looked through") {
  Chain raw;
  ValueId h = raw.layer("stack.0.blocks.0", raw.x);
  h = raw.layer("stack.0.blocks.1", h);
  raw.loss(raw.sum("", h));
  REQUIRE(finish_graph(raw.graph).has_value());
  CHECK(block_names(raw.graph) ==
        std::vector<std::string>{"prologue", "stack.0.blocks.0", "stack.0.blocks.1", "epilogue"});
  CHECK(raw.graph.blocks[0].end_op == 0);  // empty, but there
}

TEST_CASE("operators of the parent between two blocks join the earlier one") {
  Chain raw;
  ValueId h = raw.layer("h.0", raw.x);
  h = raw.unary("", "aten::tanh", h);
  h = raw.layer("h.1", h);
  raw.loss(raw.sum("", h));
  REQUIRE(finish_graph(raw.graph).has_value());
  CHECK(raw.graph.blocks[1].name == "h.0");
  CHECK(raw.graph.blocks[1].end_op == 2);
}

TEST_CASE("parameter-free operators go where they are needed, shared ones to the prologue") {
  Chain raw;
  // As traced: the shared table inside the first block, a chain for the second block at the top, the label at the
  // start.
  const ValueId labels = raw.input("labels", raw.dims);
  const ValueId shifted = raw.unary("", "aten::neg", labels);
  const ValueId for_second = raw.unary("", "aten::cos", raw.x);
  const ValueId for_second_too = raw.unary("", "aten::sin", for_second);
  ValueId h = raw.layer("embed", raw.x);
  const ValueId shared = raw.unary("h.0", "aten::exp", raw.x);
  h = raw.binary("h.0", "aten::mul.Tensor", raw.layer("h.0", h), shared, raw.dims);
  h = raw.binary("h.1", "aten::mul.Tensor", raw.layer("h.1", h), shared, raw.dims);
  h = raw.binary("h.1", "aten::mul.Tensor", h, for_second_too, raw.dims);
  raw.loss(raw.sum("", raw.binary("", "aten::mul.Tensor", h, shifted, raw.dims)));
  REQUIRE(finish_graph(raw.graph).has_value());
  const auto block = [&](ValueId value) {
    const OpId op = raw.graph.values[value].producer;
    for (const Block& one : raw.graph.blocks)
      if (op >= one.first_op && op < one.end_op) return one.name;
    return std::string("none");
  };
  CHECK(block(shared) == "prologue");
  CHECK(block(for_second) == "h.1");
  CHECK(block(for_second_too) == "h.1");
  CHECK(block(shifted) == "epilogue");
  // Still topological.
  std::vector<char> known(raw.graph.values.size(), 0);
  for (const Parameter& parameter : raw.graph.parameters) known[parameter.value] = 1;
  for (const Input& input : raw.graph.inputs) known[input.value] = 1;
  for (const Op& op : raw.graph.ops) {
    for (const Argument& argument : op.arguments)
      if (const auto* reference = std::get_if<ValueRef>(&argument.value)) CHECK(known[reference->id] == 1);
    for (const ValueId output : op.outputs) known[output] = 1;
  }
}

TEST_CASE("interleaved modules make one block and say so") {
  Chain raw;
  ValueId h = raw.layer("h.0", raw.x);
  h = raw.layer("h.1", h);
  h = raw.layer("h.0", h);
  raw.loss(raw.sum("", h));
  REQUIRE(finish_graph(raw.graph).has_value());
  CHECK(block_names(raw.graph) == std::vector<std::string>{"model"});
  REQUIRE(raw.graph.notes.size() == 1);
  CHECK(raw.graph.notes[0].find("interleaved") != std::string::npos);
}

TEST_CASE("a model without numbered modules is one block") {
  Chain raw;
  raw.loss(raw.sum("", raw.layer("first", raw.x)));
  REQUIRE(finish_graph(raw.graph).has_value());
  CHECK(block_names(raw.graph) == std::vector<std::string>{"model"});
  CHECK(raw.graph.blocks[0].end_op == 2);
}
