#pragma once
// What reader and builders share: turns a raw operator list (topological, with module paths, parameters, buffers,
// inputs and loss terms filled in, shapes and dtypes known) into a finished ModelGraph. Called by load_pt2 and
// build_from_config. Threads: pure apart from the graph it is given. Source: DESIGN 3.1.
#include "model/model_graph.h"

namespace coxswain::model {

/// Removes operators that nothing needs (loss terms are the roots), sets `producer`, `depends_on_parameter` and
/// `requires_grad` of every value, detects blocks (see below) and reorders stably so that each is contiguous, computes
/// their signatures and finds coupled operators. Unused parameters, buffers and inputs stay listed.
/// Blocks: the direct children of the outermost repeated module (`transformer.h.0`, `model.layers.3`, `blocks.2`);
/// what parameters reach before the first is "prologue", after the last "epilogue" (both always there, perhaps empty).
/// Parameter-free operators go to where they are first needed, or to the prologue when several blocks need them.
/// A graph without repeated modules, or whose repeated modules interleave, has one block, named "model".
/// Requires: called once. Errors: InvalidArgument (a value used before it is produced, no loss).
[[nodiscard]] Result<void> finish_graph(ModelGraph& graph);

}  // namespace coxswain::model
