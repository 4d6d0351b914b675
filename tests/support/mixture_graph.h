#pragma once
// A small mixture of experts as our builder makes it: two layers, 6 experts of which each token has 2, blocks 0
// (prologue) to 3 (epilogue), where the routers' loss is, if they have one. Threads: pure.
#include <stdexcept>

#include "common/json.h"
#include "model/load.h"

namespace coxswain {

inline model::ModelGraph make_mixture_graph(double balance_loss = 0) {
  auto json = parse_json(R"({"model_type": "mixtral", "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 32,
      "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 6,
      "num_experts_per_tok": 2, "max_position_embeddings": 8})");
  if (!json) throw std::runtime_error(to_text(json.error()));
  if (balance_loss > 0) {
    JsonObject object = json->object();
    object["output_router_logits"] = true;
    object["router_aux_loss_coef"] = balance_loss;
    *json = std::move(object);
  }
  auto graph = model::build_from_config(*json, {.sequence_length = 8});
  if (!graph) throw std::runtime_error(to_text(graph.error()));
  return std::move(*graph);
}

}  // namespace coxswain
