#pragma once
// One block of a model as the first position of a mesh runs it (no position has more), as a small graph of its own:
// what costs are read off, once for all blocks of a signature. Called by cost_model/. Threads: pure. Source:
// docs/layout.md.
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::plan {

struct LocalBlock {
  /// Three blocks: an operator that makes what comes from elsewhere, the block, an operator that reads what leaves it.
  /// The batch is the symbol of the whole graph again, in operators' arguments too.
  model::ModelGraph graph;
  std::vector<MeshAxis> axes;
  std::vector<int> origin;      // by op of `graph`: counted from the block's first; -1: a transition, or no op of it
  std::vector<int> parameters;  // by parameter of `graph`: that of the whole one
  std::vector<AxisSet> gradient_axes;  // by parameter of `graph`
};
/// The block of `graph` that is block kBlock of LocalBlock::graph.
inline constexpr int kBlock = 1;

/// As localise_stage lays out a stage of this block alone: parameters that another block of the stage placed (tied
/// ones) lie as this block alone would have them. Errors: as localise_stage. Cost: a search; keep the result.
[[nodiscard]] Result<LocalBlock> localise_block(const model::ModelGraph& graph, int block, int tensor, int context);

}  // namespace coxswain::plan
