// C29, C31, C32: what is read off a block's operators for the context and expert axes and for selective recompute,
// against counts from the configurations.
#include "common/json.h"
#include "model/load.h"
#include "model/op_cost.h"
#include "model/shard.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

ModelGraph build(JsonObject config) {
  auto graph = build_from_config(config, {.sequence_length = 16});
  REQUIRE(graph);
  return std::move(*graph);
}

JsonObject llama() {
  return {
      {"model_type", "llama"}, {"num_hidden_layers", 2},  {"num_attention_heads", 8}, {"num_key_value_heads", 2},
      {"hidden_size", 64},     {"intermediate_size", 96}, {"vocab_size", 64},         {"max_position_embeddings", 16}};
}

JsonObject mixtral() {
  JsonObject config = llama();
  config["model_type"] = "mixtral";
  config["num_local_experts"] = 4;
  config["num_experts_per_tok"] = 2;
  return config;
}

}  // namespace

TEST_CASE("C29: a ring passes on the keys and values before their heads are repeated", "[block_parts]") {
  const ModelGraph grouped = build(llama());
  const BlockAttention attention = find_attention(grouped, 1);
  CHECK(attention.ops.size() == 1);
  CHECK(attention.length == 16);
  CHECK(attention.num_key_heads == 2);
  // Two key heads of depth 8, keys and values.
  std::int64_t elements = 0;
  for (const ValueId value : attention.passed) elements += num_elements(grouped, value, 1);
  CHECK(elements == 2 * 2 * 8 * 16);
  CHECK(find_attention(grouped, 0).length == 0);

  JsonObject repeated_config = llama();
  repeated_config["model_type"] = "mistral";
  repeated_config["sliding_window"] = 4;
  const ModelGraph repeated = build(repeated_config);
  elements = 0;
  for (const ValueId value : find_attention(repeated, 1).passed) elements += num_elements(repeated, value, 1);
  CHECK(elements == 2 * 2 * 8 * 16);
}

TEST_CASE("C32: experts are the tables that rows are gathered from", "[block_parts]") {
  const ModelGraph graph = build(mixtral());
  const BlockExperts experts = find_experts(graph, 1);
  CHECK(experts.count == 4);
  CHECK(experts.chosen == 2);
  CHECK(experts.tables.size() == 2);
  CHECK(num_elements(graph, experts.dispatched, 3) == 3 * 16 * 2 * 64);
  CHECK(experts.first_op < experts.end_op);
  CHECK(find_experts(graph, 0).count == 0);
  CHECK(find_experts(build(llama()), 1).count == 0);
}

TEST_CASE("C32: grouped products keep no gathered matrices and read each table once", "[block_parts]") {
  const ModelGraph graph = build(mixtral());
  const BlockTotals gathered = estimate_block(graph, 1, 3), grouped = estimate_block(graph, 1, 3, ExpertForm::Grouped);
  // Each of 3 x 16 x 2 rows has a gate_up matrix (2 x 96 x 64) and a down matrix (64 x 96).
  const std::int64_t rows = 3 * 16 * 2, table = 4 * 3 * 96 * 64 * 4;
  CHECK((gathered.saved_bytes - grouped.saved_bytes).value == rows * 3 * 96 * 64 * 4);
  CHECK(grouped.forward_flop == gathered.forward_flop);
  Bytes tables{0};
  for (const OpCost& op : estimate_op_costs(graph, 1, 3, ExpertForm::Grouped)) tables += op.table_bytes;
  CHECK(tables.value == table);
  for (const OpCost& op : estimate_op_costs(graph, 1, 3)) CHECK(op.table_bytes.value == 0);
}

TEST_CASE("C31: what contracts no parameter runs again, from what contractions made", "[block_parts]") {
  // One block x -> gelu(x W) -> gelu(. W'): gelu keeps its input, the second product the first gelu's result.
  ModelGraph graph = test_support::make_chain(2, 8);
  for (Op& op : graph.ops) {
    if (op.target != "aten::relu") continue;
    op.target = "aten::gelu";
    op.arguments.push_back({"approximate", std::string("none")});
  }
  graph.blocks[1].end_op = graph.blocks[2].end_op;
  graph.blocks.erase(graph.blocks.begin() + 2);
  const BlockTotals totals = estimate_block(graph, 1, 3);
  const std::int64_t value = 3 * 8 * 4;
  CHECK(totals.saved_bytes.value == 4 * value);
  CHECK(totals.selective_bytes.value == 3 * value);
  CHECK(totals.replayed == std::vector<int>{1});

  // relu keeps its result: a replay would need the product's instead, which frees nothing.
  for (Op& op : graph.ops) {
    if (op.target != "aten::gelu") continue;
    op.target = "aten::relu";
    op.arguments.pop_back();
  }
  const BlockTotals kept = estimate_block(graph, 1, 3);
  CHECK(kept.saved_bytes.value == 2 * value);
  CHECK(kept.selective_bytes == kept.saved_bytes);
  CHECK(kept.replayed.empty());
}

TEST_CASE("C31: attention with dropout gives its scores up, fused attention stays", "[block_parts]") {
  JsonObject config{{"model_type", "gpt2"}, {"n_layer", 1},      {"n_head", 6},
                    {"n_embd", 24},         {"n_positions", 16}, {"vocab_size", 64},
                    {"attn_pdrop", 0.5},    {"resid_pdrop", 0},  {"embd_pdrop", 0}};
  const auto replays_attention = [](const ModelGraph& graph) {
    const BlockTotals totals = estimate_block(graph, 1, 3);
    const BlockAttention attention = find_attention(graph, 1);
    return std::any_of(totals.replayed.begin(), totals.replayed.end(), [&](int op) { return attention.contains(op); });
  };
  const ModelGraph dropping = build(config);
  CHECK(replays_attention(dropping));
  const BlockTotals totals = estimate_block(dropping, 1, 3);
  const std::int64_t scores = 3 * 6 * 16 * 16 * 4;
  CHECK((totals.saved_bytes - totals.selective_bytes).value >= scores);
  config["attn_pdrop"] = 0;
  CHECK_FALSE(replays_attention(build(config)));
}
