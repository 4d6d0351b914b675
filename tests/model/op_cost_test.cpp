#include "model/op_cost.h"

#include <map>

#include "model/load.h"
#include "model/op_values.h"
#include "tests/model/analysis_data.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

struct Model : RawGraph {
  std::vector<Dim> dims{batch, Dim(3), Dim(10)};
  ValueId x = input("x", dims), weight = parameter("weight", {100, 10});
  ValueId finish(ValueId value) {
    loss(sum("", value));
    REQUIRE(finish_graph(graph).has_value());
    return value;
  }
  [[nodiscard]] OpCost cost(ValueId value, std::int64_t samples = 1) const {
    return estimate_op_cost(graph, graph.values[value].producer, samples);
  }
};

}  // namespace

TEST_CASE("C1: a product of m x k and k x n counts 2 m n k, once more for each gradient") {
  Model m;
  const std::vector<Dim> out{m.batch, Dim(3), Dim(100)};
  const ValueId first = m.linear("", m.x, m.weight, out);
  const ValueId second = m.linear("", first, m.parameter("second", {1, 100}), {m.batch, Dim(3), Dim(1)});
  m.finish(second);
  // 7 samples x 3 rows x 10 in x 100 out
  CHECK(m.cost(first, 7).forward_flop.value == 2.0 * 7 * 3 * 10 * 100);
  CHECK(m.cost(first, 7).backward_weight_flop.value == 2.0 * 7 * 3 * 10 * 100);
  CHECK(m.cost(first, 7).backward_input_flop.value == 0);  // the input needs no gradient
  CHECK(m.cost(second, 7).backward_input_flop.value == 2.0 * 7 * 3 * 100);
  CHECK(m.cost(first).op_class == OpClass::Matmul);
}

TEST_CASE("C1: the gradient of an expert's matrix, read by row, is a weight's") {
  Model m;
  const ValueId hidden =
      m.linear("", m.input("y", {m.batch, Dim(10), Dim(2)}), m.parameter("w", {1, 2}), {m.batch, Dim(10), Dim(1)});
  const ValueId chosen = m.input("expert", {m.batch}, DType::Int64);
  const ValueId matrices = m.op("", "aten::index.Tensor",
                                {{"self", ValueRef{m.parameter("table", {4, 6, 10})}},
                                 {"indices", std::vector<std::optional<ValueRef>>{ValueRef{chosen}}}},
                                {m.batch, Dim(6), Dim(10)});
  const ValueId product =
      m.op("", "aten::bmm", {{"self", ValueRef{matrices}}, {"mat2", ValueRef{hidden}}}, {m.batch, Dim(6), Dim(1)});
  m.finish(product);
  CHECK(m.cost(product, 7).forward_flop.value == 2.0 * 7 * 6 * 10);
  CHECK(m.cost(product, 7).backward_weight_flop.value == 2.0 * 7 * 6 * 10);
  CHECK(m.cost(product, 7).backward_input_flop.value == 2.0 * 7 * 6 * 10);
}

TEST_CASE("C1: attention counts both products in full, and five in backward") {
  Model m;
  const std::vector<Dim> heads{m.batch, Dim(2), Dim(5), Dim(8)};
  const ValueId projected =
      m.linear("", m.input("y", {m.batch, Dim(2), Dim(5), Dim(10)}), m.parameter("w", {8, 10}), heads);
  const auto attend = [&](double dropout) {
    return m.op("", "aten::scaled_dot_product_attention",
                {{"query", ValueRef{projected}},
                 {"key", ValueRef{projected}},
                 {"value", ValueRef{projected}},
                 {"dropout_p", dropout},
                 {"is_causal", true}},
                heads);
  };
  const ValueId flash = attend(0.0), explicit_form = attend(0.5);
  m.finish(m.binary("", "aten::add.Tensor", flash, explicit_form, heads));
  const double forward = 4.0 * 3 * 2 * 5 * 5 * 8;
  CHECK(m.cost(flash, 3).forward_flop.value == forward);
  CHECK(m.cost(flash, 3).backward_input_flop.value == 2.5 * forward);
  CHECK(m.cost(explicit_form, 3).backward_input_flop.value == 2 * forward);
  CHECK(m.cost(flash, 3).op_class == OpClass::Attention);
}

TEST_CASE("C1: a convolution counts its kernel once per output element") {
  Model m;
  const ValueId image = m.input("image", {m.batch, Dim(6), Dim(9), Dim(9)});
  const ValueId kernel = m.parameter("kernel", {4, 3, 2, 2});  // two groups
  const std::vector<Dim> two{Dim(1), Dim(1)}, zero{Dim(0), Dim(0)};
  const ValueId out = m.op("", "aten::convolution",
                           {{"input", ValueRef{image}},
                            {"weight", ValueRef{kernel}},
                            {"bias", None{}},
                            {"stride", two},
                            {"padding", zero},
                            {"dilation", two},
                            {"transposed", false},
                            {"output_padding", zero},
                            {"groups", Dim(2)}},
                           {m.batch, Dim(4), Dim(8), Dim(8)});
  m.finish(out);
  CHECK(m.cost(out, 5).forward_flop.value == 2.0 * 5 * 4 * 8 * 8 * 3 * 2 * 2);
}

TEST_CASE("C2: a pointwise operator reads and writes each element, a view none") {
  Model m;
  const std::vector<Dim> out{m.batch, Dim(3), Dim(100)};
  const ValueId h = m.linear("", m.x, m.weight, out);
  const ValueId curved = m.unary("", "aten::tanh", h);
  const ValueId viewed =
      m.op("", "aten::view", {{"self", ValueRef{curved}}, {"size", std::vector<Dim>{Dim(3) * m.batch, Dim(100)}}},
           {Dim(3) * m.batch, Dim(100)});
  m.finish(viewed);
  const std::int64_t element_bytes = 4 * 2 * 3 * 100;
  CHECK(m.cost(curved, 2).forward_bytes == Bytes(2 * element_bytes));
  CHECK(m.cost(curved, 2).backward_bytes == Bytes(3 * element_bytes));  // output gradient, saved output, input gradient
  CHECK(m.cost(viewed, 2).forward_bytes == Bytes(0));
  CHECK(m.cost(viewed, 2).op_class == OpClass::View);
  CHECK(m.cost(h, 2).forward_bytes == Bytes(4 * (2 * 3 * 10 + 100 * 10 + 2 * 3 * 100)));
}

TEST_CASE("C2: an embedding reads the rows that it takes, not the table") {
  Model m;
  const ValueId tokens = m.input("tokens", {m.batch, Dim(3)}, DType::Int64);
  const ValueId rows =
      m.op("", "aten::embedding", {{"weight", ValueRef{m.weight}}, {"indices", ValueRef{tokens}}}, m.dims);
  m.finish(rows);
  CHECK(m.cost(rows, 2).forward_bytes == Bytes(2 * (4 * 2 * 3 * 10) + 8 * 2 * 3));
  CHECK(m.cost(rows, 2).forward_flop.value == 0);
}

TEST_CASE("C3: saved values name storages without parameters") {
  Model m;
  const std::vector<Dim> wide{m.batch, Dim(3), Dim(100)};
  const ValueId h = m.linear("", m.x, m.weight, wide);
  const ValueId flat =
      m.op("", "aten::view", {{"self", ValueRef{h}}, {"size", std::vector<Dim>{Dim(3) * m.batch, Dim(100)}}},
           {Dim(3) * m.batch, Dim(100)});
  const ValueId curved = m.unary("", "aten::gelu", flat);
  const ValueId sum = m.binary("", "aten::add.Tensor", curved, flat, {Dim(3) * m.batch, Dim(100)});
  m.finish(sum);
  const auto saved = [&](ValueId value) { return saved_values(m.graph, m.graph.values[value].producer); };
  CHECK(storage_of(m.graph, flat) == h);
  CHECK(storage_of(m.graph, m.weight) == m.weight);
  CHECK(saved(h) == std::vector<ValueId>{m.x});
  CHECK(saved(curved) == std::vector<ValueId>{h});
  CHECK(saved(sum).empty());
  CHECK(saved_hidden_bytes(m.graph, m.graph.values[curved].producer, 4) == Bytes(0));
}

TEST_CASE("C3: dropout keeps nothing, attention with dropout a score matrix and copies of what lies badly") {
  Model m;
  const std::vector<Dim> rows{m.batch, Dim(5), Dim(2), Dim(8)}, heads{m.batch, Dim(2), Dim(5), Dim(8)};
  const ValueId h = m.linear("", m.input("y", {m.batch, Dim(5), Dim(2), Dim(10)}), m.parameter("w", {8, 10}), rows);
  const ValueId dropped = m.op("", "aten::dropout", {{"input", ValueRef{h}}, {"p", 0.1}, {"train", true}}, rows);
  const ValueId idle = m.op("", "aten::dropout", {{"input", ValueRef{dropped}}, {"p", 0.0}, {"train", true}}, rows);
  const ValueId turned =
      m.op("", "aten::transpose.int", {{"self", ValueRef{idle}}, {"dim0", Dim(1)}, {"dim1", Dim(2)}}, heads);
  const ValueId dense = m.op("", "aten::contiguous", {{"self", ValueRef{turned}}}, heads);
  const auto attend = [&](ValueId query, ValueId key) {
    return m.op("", "aten::scaled_dot_product_attention",
                {{"query", ValueRef{query}}, {"key", ValueRef{key}}, {"value", ValueRef{key}}, {"dropout_p", 0.1}},
                heads);
  };
  const ValueId mixed = attend(turned, dense);
  m.finish(mixed);
  const auto hidden = [&](ValueId value) { return saved_hidden_bytes(m.graph, m.graph.values[value].producer, 3); };
  CHECK(hidden(dropped) == Bytes(0));
  CHECK(saved_values(m.graph, m.graph.values[dropped].producer).empty());
  CHECK(storage_of(m.graph, turned) == dropped);
  // Scores, and a copy of the query.
  CHECK(hidden(mixed) == Bytes(4 * (3 * 2 * 5 * 5 + 3 * 2 * 5 * 8)));
  CHECK(saved_values(m.graph, m.graph.values[mixed].producer) == std::vector<ValueId>{dense});
}

TEST_CASE("C3: attention with dropout repeats grouped heads before it keeps them") {
  Model m;
  const std::vector<Dim> heads{m.batch, Dim(4), Dim(5), Dim(8)}, groups{m.batch, Dim(2), Dim(5), Dim(8)};
  const ValueId query =
      m.linear("", m.input("y", {m.batch, Dim(4), Dim(5), Dim(10)}), m.parameter("w", {8, 10}), heads);
  const ValueId key = m.linear("", m.input("z", {m.batch, Dim(2), Dim(5), Dim(10)}), m.parameter("v", {8, 10}), groups);
  const ValueId mixed = m.op("", "aten::scaled_dot_product_attention",
                             {{"query", ValueRef{query}},
                              {"key", ValueRef{key}},
                              {"value", ValueRef{key}},
                              {"dropout_p", 0.1},
                              {"enable_gqa", true}},
                             heads);
  m.finish(mixed);
  CHECK(saved_hidden_bytes(m.graph, m.graph.values[mixed].producer, 3) == Bytes(4 * 3 * (4 * 5 * 5 + 2 * 4 * 5 * 8)));
  CHECK(saved_values(m.graph, m.graph.values[mixed].producer) == std::vector<ValueId>{query});
}

TEST_CASE("an operator without a rule keeps every floating-point input and says so") {
  Model m;
  const std::vector<Dim> out{m.batch, Dim(3), Dim(100)};
  const ValueId h = m.linear("", m.x, m.weight, out);
  const ValueId strange = m.op("", "aten::special_i0", {{"self", ValueRef{h}}}, out);
  m.finish(strange);
  CHECK_FALSE(has_cost_rule(m.producer(strange)));
  CHECK(has_cost_rule(m.producer(h)));
  CHECK(m.cost(strange, 2).op_class == OpClass::Other);
  CHECK(m.cost(strange, 2).forward_bytes == Bytes(2 * 4 * 2 * 3 * 100));
  CHECK(saved_values(m.graph, m.graph.values[strange].producer) == std::vector<ValueId>{h});
}

TEST_CASE("one pass over a block costs every operator as the single estimate does") {
  const auto graph = load_pt2(analysis_folder() / "saved_llama_2.pt2");
  REQUIRE(graph.has_value());
  for (int block = 0; block < graph->num_blocks(); ++block) {
    const auto costs = estimate_op_costs(*graph, block, 2);
    REQUIRE(costs.size() == static_cast<std::size_t>(graph->blocks[block].end_op - graph->blocks[block].first_op));
    for (std::size_t i = 0; i < costs.size(); ++i) {
      const OpCost one = estimate_op_cost(*graph, graph->blocks[block].first_op + static_cast<OpId>(i), 2);
      CHECK(one.forward_bytes == costs[i].forward_bytes);
      CHECK(one.backward_bytes == costs[i].backward_bytes);
      CHECK(one.forward_flop == costs[i].forward_flop);
    }
  }
}

TEST_CASE("C1 and C3: FLOPs and kept bytes equal what PyTorch counts, model by model and operator by operator") {
  const Json data = analysis_data();
  REQUIRE(data.object().size() > 70);
  for (const auto& [name, expected] : data.object()) {
    INFO(name);
    const auto graph = load_pt2(analysis_folder() / (name + ".pt2"));
    REQUIRE(graph.has_value());
    Bytes saved{0}, shared{0};
    double forward = 0, backward = 0;
    for (int block = 0; block < graph->num_blocks(); ++block) {
      const BlockTotals totals = estimate_block(*graph, block, expected["batch"].integer());
      saved += totals.saved_bytes;
      shared = std::max(shared, totals.shared_bytes);
      forward += totals.forward_flop.value;
      backward += totals.backward_input_flop.value + totals.backward_weight_flop.value;
    }
    for (const Op& op : graph->ops) CHECK(has_cost_rule(op));
    CHECK((saved + shared).value == expected["saved_bytes"].integer() + expected["handed_on_bytes"].integer());
    CHECK(forward == expected["forward_flop"].number());
    CHECK(backward == expected["backward_flop"].number());
  }
}
