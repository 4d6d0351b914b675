#pragma once
// What `launch model show` prints: operators per block, parameters, FLOPs, what can be cut and what cannot, with source
// lines. Called by launcher/. Threads: pure. Source: INTERFACE section 1.
#include <string>

#include "common/json.h"
#include "model/model_graph.h"

namespace coxswain::model {

struct ShowOptions {
  std::int64_t samples = 1;  // FLOPs and bytes are of so many samples; a static batch shows its own
};

/// {"name", "parameters", "inputs", "loss", "blocks": [{... "operators"}], "cuts", "coupled", "operators": {target: count},
/// "without_cost_rule": [{"target", "module", "source", "count"}], "notes", "totals", "model_hash"}.
[[nodiscard]] Json show_json(const ModelGraph& graph, const ShowOptions& options);
/// The same as a table for people; ends in a newline.
[[nodiscard]] std::string show_text(const ModelGraph& graph, const ShowOptions& options);

}  // namespace coxswain::model
