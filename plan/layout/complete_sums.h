#pragma once
// Sums over the batch that an operator mixes samples by (model::CoupledOp), put together over the replicas that hold
// all experts together: the graph of one of them. Called by localise_stage. Private to plan/layout. Threads: pure.
// Source: docs/layout.md, "Sums over the batch".
#include "plan/layout/local_graph.h"

namespace coxswain::plan {

/// `share`: of the samples of all the replicas together that are this one's. A mean is weighted by it; where it is not
/// the whole every coupled operator of `whole` that the stage runs reads the sum over kExpertAxis in place of its own.
/// Requires: sums known (V20).
void complete_sums(LocalGraph& local, const model::ModelGraph& whole, const Stage& stage, double share);

}  // namespace coxswain::plan
