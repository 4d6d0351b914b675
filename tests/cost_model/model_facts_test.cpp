// What is read off a graph once.
#include "cost_model/model_facts.h"

#include "model/load.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("blocks of one signature share a number", "[model_facts_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const ModelFacts facts(graph);
  CHECK(facts.num_blocks() == 5);
  CHECK(facts.signature_of(2) == facts.signature_of(3));
  CHECK(facts.signature_of(0) != facts.signature_of(1));
  CHECK(facts.signature_of(4) != facts.signature_of(1));
}

TEST_CASE("a cut is crossed by what later blocks still read", "[model_facts_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const ModelFacts facts(graph);
  const auto precision = plan::Precision::Float32;
  CHECK(facts.activation_bytes(1, 5, precision).value == 0);  // the input is loaded, not sent
  CHECK(facts.activation_bytes(2, 5, precision).value == 5 * 8 * 4);
  CHECK(facts.gradient_bytes(2, 5, precision).value == 5 * 8 * 4);
  CHECK(facts.activation_bytes(2, 5, plan::Precision::BFloat16).value == 5 * 8 * 2);  // C16
  CHECK(facts.activation_bytes(2, 0, precision).value == 0);
}

TEST_CASE("cut bytes agree with slice_stage", "[model_facts_test]") {
  const model::ModelGraph graph = make_chain(4, 8, true);
  const ModelFacts facts(graph);
  for (int cut = 1; cut < graph.num_blocks(); ++cut) {
    Bytes bytes{0};
    for (const model::ValueId value : model::slice_stage(graph, cut, graph.num_blocks()).received)
      bytes += model::value_bytes(graph, value, 3);
    CHECK(facts.activation_bytes(cut, 3, plan::Precision::Float32) == bytes);
  }
}

TEST_CASE("parameters know the blocks that use them", "[model_facts_test]") {
  const model::ModelGraph graph = make_chain(3, 8, true);
  const ModelFacts facts(graph);
  CHECK(facts.parameters()[0].blocks == std::vector<int>{1, 4});
  CHECK(facts.parameters()[1].blocks == std::vector<int>{2});
  CHECK(facts.parameters()[1].elements == 64);
}

TEST_CASE("C21: a step's model FLOPs are three forward passes of matmuls", "[model_facts_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  CHECK(ModelFacts(graph).model_flop(10).value == Approx(3.0 * 10 * 3 * 2 * 8 * 8));
}

TEST_CASE("numbers between two powers of two are those of the operators themselves", "[model_facts_test]") {
  const auto graph = model::build_from_config(JsonObject{{"model_type", "gpt2"},
                                                         {"n_layer", 2},
                                                         {"n_embd", 48},
                                                         {"n_head", 4},
                                                         {"n_positions", 16},
                                                         {"vocab_size", 64}},
                                              {});
  REQUIRE(graph.has_value());
  const cost_model::ModelFacts facts(*graph);
  for (int block = 0; block < facts.num_blocks(); ++block) {
    for (const std::int64_t samples : {5, 7, 11, 13, 100, 2047}) {
      const model::BlockTotals direct = model::estimate_block(*graph, block, samples);
      const model::BlockTotals& found = facts.totals(block, samples);
      CHECK(found.saved_bytes == direct.saved_bytes);
      CHECK(found.transient_bytes == direct.transient_bytes);
      CHECK(found.selective_bytes == direct.selective_bytes);
      CHECK(found.forward_flop == direct.forward_flop);
      const auto costs = model::estimate_op_costs(*graph, block, samples);
      const auto& looked_up = facts.op_costs(block, samples, model::ExpertForm::Gathered);
      REQUIRE(looked_up.size() == costs.size());
      for (std::size_t i = 0; i < costs.size(); ++i) {
        CHECK(looked_up[i].forward_bytes == costs[i].forward_bytes);
        CHECK(looked_up[i].backward_bytes == costs[i].backward_bytes);
        CHECK(looked_up[i].backward_weight_flop == costs[i].backward_weight_flop);
      }
    }
  }
}
