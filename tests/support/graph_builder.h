#pragma once
// A small finished ModelGraph made by hand: token embedding (prologue), `num_layers` equal residual layers, and an
// epilogue with the output projection (tied to the embedding unless told otherwise) and the loss. Threads: pure.
#include "model/model_graph.h"

namespace coxswain {

struct ChainOptions {
  int num_layers = 4;
  std::int64_t width = 8, vocabulary = 16, sequence = 4;
  bool tied = true;
  bool static_batch = false;  // of 8 samples
};
/// Blocks: 0 = prologue, 1 .. num_layers, num_layers + 1 = epilogue. Parameters in this order: embedding, layers, head.
[[nodiscard]] model::ModelGraph make_chain_graph(const ChainOptions& options = {});

}  // namespace coxswain
