#pragma once
// Piper's own input file: limits, nodes with "TMPCs" by tensor degree, and edges in one document. It becomes the two
// documents of an instance. Called by piper. Threads: pure. Source: the input format that Piper documents.
#include "common/json.h"
#include "common/result.h"

namespace coxswain::planner {

/// Has `json` what only Piper's own form has?
[[nodiscard]] bool is_piper_file(const Json& json);

struct PiperDocuments {
  Json instance, model;  // as parse_piper reads them
};
/// Errors: InvalidArgument, every problem of form listed; parse_piper finds the others.
[[nodiscard]] Result<PiperDocuments> convert_piper_file(const Json& json);

}  // namespace coxswain::planner
