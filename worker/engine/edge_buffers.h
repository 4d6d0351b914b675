#pragma once
// What crosses to and from the neighbouring stages: pieces of activations and gradients by intersections of sample
// ranges, made contiguous where the sample dim is not the first. Called by engine. Threads: the engine's one. Private
// to worker/engine. Source: DESIGN 3.3, 3.7.
#include <ATen/core/TensorBody.h>

#include <map>
#include <tuple>
#include <vector>

#include "collective/communicator.h"
#include "model/model_graph.h"
#include "plan/program.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {

/// One side of one edge in one direction.
struct EdgeSpec {
  std::vector<model::ValueId> values;  // in the order in which they travel
  std::vector<plan::Transfer> transfers;
  std::vector<int> peers;  // rank in the edge's communicator, per transfer
};

class EdgeBuffers {
 public:
  EdgeBuffers(const model::ModelGraph& graph, std::int64_t samples, plan::Precision precision)
      : graph_(graph), samples_(samples), precision_(precision) {}

  /// Each of these for one edge action. Pieces of `tensors` (one per value) for every peer; they live until `drop`. A
  /// value without a sample dim goes whole to every peer; as a gradient (`once`) to the first only and as zeros to the
  /// others, so that it is summed once.
  [[nodiscard]] std::vector<collective::PointToPoint> send(const plan::Action& action, const EdgeSpec& edge,
                                                           const std::vector<at::Tensor>& tensors, bool once);
  void drop(const plan::Action& action) { pending_.erase(key_of(action)); }

  /// Buffers for every peer's pieces.
  [[nodiscard]] std::vector<collective::PointToPoint> receive(const plan::Action& action, const EdgeSpec& edge);
  /// The whole tensors, one per value. `sum`: pieces of a value without a sample dim are added up, else the first
  /// counts.
  [[nodiscard]] std::vector<at::Tensor> take(const plan::Action& action, const EdgeSpec& edge, bool sum);

 private:
  using Key = std::tuple<plan::ActionKind, int, int>;  // with chunk and micro-batch
  static Key key_of(const plan::Action& action) { return {action.kind, action.chunk, action.micro_batch}; }
  struct Pending {
    std::vector<at::Tensor> whole;               // per value
    std::vector<std::vector<at::Tensor>> parts;  // per transfer, per value: what travels
  };
  [[nodiscard]] at::Tensor piece(const at::Tensor& whole, model::ValueId value, const plan::Transfer& transfer) const;
  [[nodiscard]] collective::PointToPoint operation(collective::PointToPoint::Kind kind, int peer,
                                                   const at::Tensor& part, model::ValueId value) const;

  const model::ModelGraph& graph_;
  std::int64_t samples_;
  plan::Precision precision_;
  std::map<Key, Pending> pending_;
};

}  // namespace coxswain::worker
