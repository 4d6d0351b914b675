#include "model/finish_parts.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

/// embed | h.0, h.1, h.2 (each: x -> x W * table + skip) | head, with a tied weight in embed and head, a table that no
/// parameter influences, a skip from h.0 to h.2, and a counted loss.
struct Model : RawGraph {
  std::vector<Dim> dims{batch, Dim(4)};
  ValueId x = input("x", dims), unused = input("unused", dims), labels = input("labels", dims);
  ValueId tied, table, skip, h0, h1, h2, numerator, denominator;

  Model() {
    tied = parameter("tied", {4, 4});
    table = unary("rotary", "aten::cos", x);
    const ValueId embedded = linear("embed", x, tied, dims);
    h0 = layer("h.0", embedded);
    skip = unary("h.0", "aten::tanh", h0);
    h1 = layer("h.1", h0);
    h2 = binary("h.2", "aten::add.Tensor", layer("h.2", h1), skip, dims);
    const ValueId logits = linear("head", h2, tied, dims);
    numerator = sum("", binary("", "aten::mul.Tensor", logits, labels, dims));
    denominator = sum("", unary("", "aten::abs", labels));
    graph.loss.push_back({1.0, numerator, denominator});
    const auto finished = finish_graph(graph);
    REQUIRE(finished.has_value());
  }
  ValueId layer(const std::string& path, ValueId from) {
    return binary(path, "aten::mul.Tensor", linear(path, from, parameter(path + ".weight", {4, 4}), dims), table, dims);
  }
  [[nodiscard]] bool has(const StageSlice& slice, ValueId value) const {
    return std::find(slice.ops.begin(), slice.ops.end(), graph.values[value].producer) != slice.ops.end();
  }
};

}  // namespace

TEST_CASE("a cut sends what parameters influence and later operators read, nothing else") {
  const Model model;
  REQUIRE(model.graph.num_blocks() == 5);
  const StageSlice first = slice_stage(model.graph, 0, 2);  // embed, h.0
  CHECK(first.received.empty());
  CHECK(first.sent == std::vector<ValueId>{model.h0, model.skip});
  const StageSlice second = slice_stage(model.graph, 2, 3);  // h.1: the skip passes through
  CHECK(second.received == first.sent);
  CHECK(second.sent == std::vector<ValueId>{model.skip, model.h1});
  const StageSlice last = slice_stage(model.graph, 3, 5);
  CHECK(last.received == second.sent);
  CHECK(last.sent.empty());
}

TEST_CASE("parameter-free values are recomputed by each stage that uses them") {
  const Model model;
  for (const auto& [begin, end] : {std::pair{0, 2}, std::pair{2, 3}, std::pair{3, 4}})
    CHECK(model.has(slice_stage(model.graph, begin, end), model.table));
  const StageSlice head = slice_stage(model.graph, 4, 5);
  CHECK_FALSE(model.has(head, model.table));
  CHECK(model.has(head, model.denominator));
  CHECK_FALSE(model.has(slice_stage(model.graph, 3, 4), model.denominator));
}

TEST_CASE("a stage lists only the inputs and parameters that it uses") {
  const Model model;
  const auto inputs = [&](int begin, int end) { return slice_stage(model.graph, begin, end).inputs; };
  CHECK(inputs(0, 2) == std::vector<int>{0});
  CHECK(inputs(4, 5) == std::vector<int>{2});
  CHECK(inputs(0, 5) == std::vector<int>{0, 2});
  CHECK(slice_stage(model.graph, 0, 1).parameters == std::vector<int>{0});
  CHECK(slice_stage(model.graph, 4, 5).parameters == std::vector<int>{0});
  CHECK(slice_stage(model.graph, 2, 4).parameters == std::vector<int>{2, 3});
  CHECK(blocks_using(model.graph, 0) == std::vector<int>{0, 4});
  CHECK(blocks_using(model.graph, 2) == std::vector<int>{2});
}

TEST_CASE("the loss belongs to the stage that computes its numerator") {
  const Model model;
  CHECK_FALSE(slice_stage(model.graph, 0, 4).has_loss);
  CHECK(slice_stage(model.graph, 4, 5).has_loss);
}

TEST_CASE("stages together run every parameter-dependent operator once") {
  const Model model;
  std::vector<int> runs(model.graph.ops.size(), 0);
  for (const auto& [begin, end] : {std::pair{0, 1}, std::pair{1, 3}, std::pair{3, 5}})
    for (const OpId op : slice_stage(model.graph, begin, end).ops) ++runs[op];
  for (std::size_t op = 0; op < runs.size(); ++op)
    if (model.graph.values[model.graph.ops[op].outputs.front()].depends_on_parameter) CHECK(runs[op] == 1);
}

TEST_CASE("the two computations of live values agree") {
  const Model model;
  const auto live = live_at_cuts(model.graph);
  for (int block = 0; block < model.graph.num_blocks(); ++block)
    CHECK(live[block] == live_values(model.graph, model.graph.blocks[block].first_op));
  CHECK(live.back().empty());
}

TEST_CASE("an operator's block is found beside empty blocks") {
  ModelGraph graph;
  graph.blocks = {{"prologue", 0, 0, ""}, {"a", 0, 2, ""}, {"b", 2, 2, ""}, {"c", 2, 3, ""}};
  CHECK(block_of(graph, 0) == 1);
  CHECK(block_of(graph, 1) == 1);
  CHECK(block_of(graph, 2) == 3);
}

TEST_CASE("elements and bytes follow the number of samples") {
  RawGraph raw;
  const ValueId x = raw.input("x", {Dim(3) * raw.batch, Dim(5)}, DType::Int64);
  CHECK(num_elements(raw.graph, x, 7) == 3 * 7 * 5);
  CHECK(value_bytes(raw.graph, x, 7) == Bytes(3 * 7 * 5 * 8));
}
