#include "model/show.h"

#include "model/load.h"
#include "model/op_cost.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

ModelGraph tiny_gpt2() {
  return build_from_config(
             parse_json(
                 R"({"model_type": "gpt2", "n_layer": 3, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": 10})")
                 .value(),
             {})
      .value();
}

}  // namespace

TEST_CASE("the table groups equal blocks and names ties") {
  const std::string text = show_table(tiny_gpt2(), 2);
  CHECK(text.find("gpt2: 10,160 parameters") == 0);  // 160 + 128 + 3 (12 x 256 + 13 x 16) + 32
  CHECK(text.find("5 blocks, any batch") != std::string::npos);
  CHECK(text.find("tied: lm_head.weight is transformer.wte.weight") != std::string::npos);
  CHECK(text.find("transformer.h.0 .. transformer.h.2") != std::string::npos);
  CHECK(text.find("Stages may be cut before any block.") != std::string::npos);
}

TEST_CASE("the JSON holds blocks, cuts, operators and totals that agree") {
  const ModelGraph graph = tiny_gpt2();
  const Json json = show_json(graph, 2);
  CHECK(json["totals"]["num_parameters"].integer() == 10160);
  REQUIRE(json["blocks"].array().size() == 5);
  std::int64_t parameters = 0, operators = 0;
  for (const Json& block : json["blocks"].array()) {
    parameters += block["num_parameters"].integer();
    operators += static_cast<std::int64_t>(block["operators"].array().size());
  }
  CHECK(parameters == 10160);
  CHECK(operators == static_cast<std::int64_t>(graph.ops.size()));
  REQUIRE(json["cuts"].array().size() == 4);
  CHECK(json["cuts"].array()[0]["bytes"].integer() == 2 * 8 * 16 * 4);
  CHECK(json["operators"]["aten::layer_norm"].integer() == 7);
  CHECK(json["model_hash"].string() == model_hash(graph));
  CHECK(json["without_cost_rule"].array().empty());
  CHECK(parse_json(to_text(json)).value() == json);
}

TEST_CASE("what cannot be cut, split or costed is named with its source line") {
  RawGraph raw;
  const std::vector<Dim> dims{raw.batch, Dim(4)};
  const ValueId x = raw.input("x", dims);
  ValueId h = raw.linear("net.first", x, raw.parameter("w", {4, 4}), dims);
  h = raw.unary("net.odd", "aten::special_i0", h);
  const ValueId mean =
      raw.op("net.balance", "aten::mean.dim", {{"self", ValueRef{h}}, {"dim", std::vector<Dim>{Dim(0)}}}, {Dim(4)});
  raw.loss(raw.sum("net", raw.binary("net.balance", "aten::mul.Tensor", mean, mean, {Dim(4)})));
  REQUIRE(finish_graph(raw.graph).has_value());
  const std::string text = show_table(raw.graph, 1);
  CHECK(text.find("note: no numbered modules") != std::string::npos);
  CHECK(text.find("couples samples: aten::mul.Tensor at net.balance (model.py:4) multiplies two sums over the batch") !=
        std::string::npos);
  CHECK(text.find("aten::special_i0 x 1, first at net.odd (model.py:2)") != std::string::npos);
  const Json json = show_json(raw.graph, 1);
  REQUIRE(json["coupled"].array().size() == 1);
  REQUIRE(json["without_cost_rule"].array().size() == 1);
  CHECK(json["coupled"].array()[0]["source"].string() == "model.py:4");
  CHECK(json["without_cost_rule"].array()[0]["operator"].string() == "aten::special_i0");
  CHECK(json["notes"].array().size() == 1);
}
