#pragma once
// Buffers of edge actions: the pieces of values and gradients that a rank exchanges with each peer, made contiguous
// where they are not. Called by engine. Threads: the engine's one. Private to worker/engine. Source: edge_pieces.h.
#include <ATen/core/TensorBody.h>

#include <map>
#include <tuple>
#include <vector>

#include "collective/communicator.h"
#include "model/model_graph.h"
#include "plan/program.h"
#include "worker/engine/edge_pieces.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {

/// One side of one edge in one direction.
struct EdgeSpec {
  bool exists = false;                           // false: no edge, nothing is sent or received
  std::vector<model::ValueId> values;            // in the order in which they travel
  std::vector<std::vector<std::int64_t>> sizes;  // of this rank's parts
  std::vector<char> whole;                       // by value: the pieces are all of it, each element once
  std::vector<EdgePiece> pieces;                 // peer: rank in the edge's communicator
};

class EdgeBuffers {
 public:
  EdgeBuffers(const model::ModelGraph& graph, plan::Precision precision) : graph_(graph), precision_(precision) {}

  /// Each of these for one edge action. Pieces of `tensors` (one per value); they live until `drop`.
  [[nodiscard]] std::vector<collective::PointToPoint> send(const plan::Action& action, const EdgeSpec& edge,
                                                           const std::vector<at::Tensor>& tensors);
  void drop(const plan::Action& action) { pending_.erase(key_of(action)); }

  /// Buffers for every piece.
  [[nodiscard]] std::vector<collective::PointToPoint> receive(const plan::Action& action, const EdgeSpec& edge);
  /// This rank's tensors, one per value: pieces that overlap are added up, what none has is zero.
  [[nodiscard]] std::vector<at::Tensor> take(const plan::Action& action, const EdgeSpec& edge);

 private:
  using Key = std::tuple<plan::ActionKind, int, int>;  // with chunk and micro-batch
  static Key key_of(const plan::Action& action) { return {action.kind, action.chunk, action.micro_batch}; }
  struct Pending {
    std::vector<at::Tensor> whole;  // per value; undefined while all its pieces arrive apart
    std::vector<at::Tensor> parts;  // per piece: what travels
  };
  [[nodiscard]] at::Tensor make_whole(const EdgeSpec& edge, std::size_t value) const;
  [[nodiscard]] collective::PointToPoint operation(collective::PointToPoint::Kind kind, int peer,
                                                   const at::Tensor& part, model::ValueId value) const;

  const model::ModelGraph& graph_;
  plan::Precision precision_;
  std::map<Key, Pending> pending_;
};

}  // namespace coxswain::worker
