#include "plan/layout/local_block.h"

#include "model/load.h"

#include <catch2/catch.hpp>

using namespace coxswain;

TEST_CASE("a block by itself has the batch as a symbol, its own parameters, and says where its operators come from") {
  const JsonObject config{{"model_type", "gpt2"}, {"n_layer", 3},     {"n_head", 4},
                          {"n_embd", 32},         {"vocab_size", 97}, {"n_positions", 16}};
  const auto graph = model::build_from_config(config, {.sequence_length = 16});
  REQUIRE(graph);
  const auto local = plan::localise_block(*graph, 2, 2, 1);
  REQUIRE(local);
  CHECK(local->graph.num_blocks() == 3);
  CHECK(local->graph.batch_symbol == "batch");
  const model::Block &whole = graph->blocks[2], &block = local->graph.blocks[plan::kBlock];
  CHECK(block.name == whole.name);
  REQUIRE(local->origin.size() == local->graph.ops.size());
  int next = 0;
  for (model::OpId id = block.first_op; id < block.end_op; ++id) {
    const int origin = local->origin[static_cast<std::size_t>(id)];
    const std::string& target = local->graph.ops[static_cast<std::size_t>(id)].target;
    if (origin < 0) {
      CHECK(target.starts_with("coxswain::"));
      continue;
    }
    CHECK(origin == next++);
    CHECK(target == graph->ops[static_cast<std::size_t>(whole.first_op + origin)].target);
  }
  CHECK(next == whole.end_op - whole.first_op);
  for (const model::ValueId value : model::slice_stage(local->graph, plan::kBlock, plan::kBlock + 1).received) {
    CHECK(model::num_elements(local->graph, value, 6) == 6 * 8 * 32);  // half of 16 rows
    CHECK(!local->graph.values[static_cast<std::size_t>(value)].dims.front().is_constant());
  }
  REQUIRE(local->parameters.size() == 12);
  for (std::size_t p = 0; p < local->parameters.size(); ++p)
    CHECK(local->graph.parameters[p].name == graph->parameters[static_cast<std::size_t>(local->parameters[p])].name);
}

TEST_CASE("a block that cannot be split is refused by name") {
  const JsonObject config{{"model_type", "gpt2"}, {"n_layer", 2},     {"n_head", 4},
                          {"n_embd", 32},         {"vocab_size", 97}, {"n_positions", 16}};
  const auto graph = model::build_from_config(config, {.sequence_length = 16});
  REQUIRE(graph);
  const auto local = plan::localise_block(*graph, 1, 4099, 1);
  REQUIRE(!local);
  CHECK(local.error().code == ErrorCode::InvalidArgument);
}
