#pragma once
// What `launch model show` prints: operators per block, parameters, FLOPs, what can be cut and what cannot, with source
// lines. Called by launcher/. Threads: pure. Source: INTERFACE section 1.
#include <cstdint>
#include <string>

#include "common/json.h"
#include "model/model_graph.h"

namespace coxswain::model {

/// {"name", "model_hash", "batch", "samples", "inputs", "loss", "parameters", "blocks": [{... "operators"}], "cuts",
/// "coupled", "operators": {target: count}, "without_cost_rule": [{"operator", "module", "source", "count"}], "notes",
/// "totals"}. FLOPs and bytes are of `samples`; a static batch shows its own.
[[nodiscard]] Json show_json(const ModelGraph& graph, std::int64_t samples);
/// The same as a table for people; ends in a newline.
[[nodiscard]] std::string show_table(const ModelGraph& graph, std::int64_t samples);

}  // namespace coxswain::model
