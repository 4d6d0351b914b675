#include "plan/layout/context_runs.h"

#include <string>

#include "model/load.h"
#include "tests/plan/layout/graph_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using coxswain::tests::LayoutGraph;

namespace {

int runs_of(const std::string& name) {
  const auto graph = model::load_pt2(std::string(COX_FIXTURES) + "/" + name + ".pt2");
  REQUIRE(graph);
  return plan::context_runs(*graph);
}

/// Attention with a mask that `op` made of values of sizes `left` and `right`.
int runs_of_mask(const std::string& op, const std::vector<std::int64_t>& left, const std::vector<std::int64_t>& right,
                 const std::vector<std::int64_t>& made, bool learned = false) {
  LayoutGraph builder;
  const auto query = builder.value({2, 4, 8, 16});
  const auto a = builder.value(left, false), b = builder.value(right, false);
  auto mask = builder.op(op, {{"self", model::ValueRef{a}}, {"other", model::ValueRef{b}}}, made);
  mask = builder.op("aten::expand", {{"self", model::ValueRef{mask}}}, {2, 1, 8, 8});
  builder.graph.values[static_cast<std::size_t>(mask)].depends_on_parameter = learned;
  const auto result = builder.op("aten::scaled_dot_product_attention",
                                 {{"query", model::ValueRef{query}},
                                  {"key", model::ValueRef{query}},
                                  {"value", model::ValueRef{query}},
                                  {"attn_mask", model::ValueRef{mask}},
                                  {"is_causal", false}},
                                 {2, 4, 8, 16});
  return plan::context_runs(builder.finish(result));
}

}  // namespace

TEST_CASE("models whose attention hides what follows have two runs, others one", "[context_runs_test]") {
  for (const char* name : {"saved_gpt2_2", "saved_llama_2", "saved_mixtral_2", "saved_qwen3_2", "gpt_four_layers"}) {
    INFO(name);
    CHECK(runs_of(name) == 2);
  }
  CHECK(runs_of("saved_mistral_window_2") == 2);  // its mask is data
  CHECK(runs_of("saved_bert_2") == 1);            // so is this one: padding
  CHECK(runs_of("saved_vit_2") == 1);
}

TEST_CASE("a mask counts where it orders positions of queries and keys", "[context_runs_test]") {
  CHECK(runs_of_mask("aten::le.Tensor", {8}, {8, 1}, {8, 8}) == 2);
  CHECK(runs_of_mask("aten::tril", {8, 8}, {1}, {8, 8}) == 2);
  CHECK(runs_of_mask("aten::ne.Tensor", {8}, {8, 1}, {8, 8}) == 1);
  CHECK(runs_of_mask("aten::le.Tensor", {2, 1, 1, 8}, {}, {2, 1, 1, 8}) == 1);  // keys alone: padding
  CHECK(runs_of_mask("aten::le.Tensor", {8}, {8, 1}, {8, 8}, true) == 1);       // never in a ring
}
