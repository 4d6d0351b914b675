#pragma once
// Which rows of which value travel between which ranks across an edge: intersections of what the two sides hold
// (samples of their replicas, cuts of their meshes), each element to each receiver from one sender. A gradient goes
// back where its value came from. Both sides compute the same list. Called by chunk. Threads: pure. Private to
// worker/engine. Source: DESIGN 3.3, docs/plan.md, "Groups and transfers".
#include <functional>
#include <vector>

#include "model/model_graph.h"
#include "plan/plan.h"
#include "worker/engine/boxes.h"

namespace coxswain::worker {

struct EdgePiece {
  int peer = -1;          // global rank
  std::size_t value = 0;  // index into the edge's values
  RowRuns rows;           // of this rank's own part of the value
};

/// plan::edge_cuts, or a test's own.
using EdgeCuts =
    std::function<std::vector<plan::Cut>(const model::ModelGraph& graph, model::ValueId value, std::int64_t samples,
                                         const plan::Replica& replica, int position)>;

/// Pieces of `rank` with `other_stage`, by peer, then value. `sends`: this rank's stage makes the values.
[[nodiscard]] std::vector<EdgePiece> edge_pieces(const model::ModelGraph& graph, const plan::Plan& plan,
                                                 const std::vector<model::ValueId>& values, int rank, int other_stage,
                                                 bool sends, const EdgeCuts& cuts = plan::edge_cuts);

/// Whether the pieces of `value` are all of a tensor of these sizes, each element once.
[[nodiscard]] bool covers_once(const std::vector<EdgePiece>& pieces, std::size_t value,
                               const std::vector<std::int64_t>& sizes);

}  // namespace coxswain::worker
