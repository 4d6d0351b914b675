#pragma once
// How many runs of rows each member of a context axis has: a property of the model, so that values cross between blocks
// and stages in one form whatever their meshes. Private to plan/layout. Threads: pure. Source: Brandon et al. 2023
// (arXiv 2311.09431), Llama 3 (arXiv 2407.21783), docs/layout.md.
#include "plan/layout/local_graph.h"

namespace coxswain::plan {

/// Two where some attention hides what is behind its query, so that later rows have more to do: it is causal, or it has
/// a mask, of no parameter, made by comparing the positions of queries and keys (a window, a causal mask as data). Else
/// one. Cost: operators of the graph up to that attention.
[[nodiscard]] int context_runs(const model::ModelGraph& graph);

/// localise_stage of a graph that is a part of one with `context_runs`.
[[nodiscard]] Result<LocalGraph> localise_stage(const model::ModelGraph& graph, const Stage& stage,
                                                const Replica& replica, int position, int context_runs,
                                                const ExpertPlace& experts = {});

}  // namespace coxswain::plan
