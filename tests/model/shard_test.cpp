// C25: heads and runs of published families, counted by reading their papers' figures.
#include "model/shard.h"

#include "common/json.h"
#include "model/load.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {

ModelGraph build(JsonObject config) {
  auto graph = build_from_config(config, {.sequence_length = 16});
  REQUIRE(graph);
  return std::move(*graph);
}

}  // namespace

TEST_CASE("C25: a transformer layer is two runs, attention and feed-forward", "[shard]") {
  const ModelGraph gpt2 = build(
      {{"model_type", "gpt2"}, {"n_layer", 2}, {"n_head", 6}, {"n_embd", 24}, {"n_positions", 16}, {"vocab_size", 64}});
  const ModelGraph llama = build({{"model_type", "llama"},
                                  {"num_hidden_layers", 2},
                                  {"num_attention_heads", 8},
                                  {"num_key_value_heads", 2},
                                  {"hidden_size", 64},
                                  {"intermediate_size", 96},
                                  {"vocab_size", 64},
                                  {"max_position_embeddings", 16}});
  for (const auto& [graph, heads] : {std::pair{&gpt2, 6}, std::pair{&llama, 8}}) {
    REQUIRE(graph->num_blocks() == 4);
    for (const int layer : {1, 2}) {
      CHECK(find_block_shard(*graph, layer).num_runs == 2);
      CHECK(find_block_shard(*graph, layer).num_heads == heads);
    }
    // Embedding and head contract one table each.
    for (const int end : {0, 3}) {
      CHECK(find_block_shard(*graph, end).num_runs == 1);
      CHECK(find_block_shard(*graph, end).num_heads == 0);
    }
  }
}

TEST_CASE("weights are split, vectors are not", "[shard]") {
  Parameter parameter;
  parameter.dims = {4, 8};
  CHECK(is_sharded(parameter));
  parameter.dims = {8};
  CHECK_FALSE(is_sharded(parameter));
}
