#pragma once
// Runs a stage's blocks forward and backward, one micro-batch at a time. The unit of autograd is a block: its inputs
// are re-leafed, its backward is one engine call with explicit inputs and outputs; no AccumulateGrad runs, gradients of
// parameters go to the ParameterStore, gradients of values to the micro-batch.
// Called by engine, profile and check. Threads: the engine's one. Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>
#include <torch/csrc/autograd/function.h>

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "common/result.h"
#include "worker/engine/block_storages.h"
#include "worker/engine/host_memory.h"
#include "worker/engine/lowering.h"
#include "worker/engine/parameter_store.h"
#include "worker/engine/split_backward.h"

namespace coxswain::worker {

/// The autograd graph of one block between forward and backward.
struct SegmentGraph {
  std::vector<torch::autograd::Edge> inputs;  // of Segment::inputs; invalid where no gradient flows
  std::vector<std::pair<model::ValueId, torch::autograd::Edge>> outputs;
  BlockStorages storages;                // what was emptied and is made again before backward
  std::shared_ptr<MovedStorages> moved;  // what is on the host
};

/// What one micro-batch keeps; freed piece by piece as nothing needs it any more.
struct MicroBatch {
  RunMode mode;
  bool prepared = false;              // the prelude has run
  bool seeded = false;                // loss gradients are set
  std::vector<at::Tensor> values;     // by value id
  std::vector<at::Tensor> gradients;  // by value id
  std::vector<SegmentGraph> graphs;   // by segment
  std::vector<WeightWork> owed;       // by segment: what a split backward leaves to W
};

class StageRunner {
 public:
  /// `store` holds every trainable parameter of the stage; borrowed.
  [[nodiscard]] static Result<std::unique_ptr<StageRunner>> make(const model::ModelGraph& graph,
                                                                 const LoweringOptions& options,
                                                                 const WeightSource& weights, ParameterStore& store);

  [[nodiscard]] MicroBatch make_micro_batch(const RunMode& mode) const;
  [[nodiscard]] const LoweredStage& stage() const { return stage_; }

  /// Blocks [first_block, end_block) (graph numbers). The micro-batch holds the stage's inputs and received values.
  /// In training keeps graphs, or inputs where the plan recomputes.
  Result<void> forward(MicroBatch& batch, int first_block, int end_block);
  /// In reverse; gradients of outputs are in the micro-batch (absent: zero).
  Result<void> backward(MicroBatch& batch, int first_block, int end_block);
  /// The same for gradients of values; those of parameters, but gains and shifts of norms, are owed.
  Result<void> backward_inputs(MicroBatch& batch, int first_block, int end_block);
  /// Pays what backward_inputs left in MicroBatch::owed, block by block in reverse.
  Result<void> backward_weights(std::vector<WeightWork>& owed, int first_block, int end_block);
  /// Loss denominators of the terms of `stage().terms` (0 where a term has none) from the inputs in `batch`.
  [[nodiscard]] Result<std::vector<double>> count(MicroBatch& batch);
  /// Adds to the gradient of a value. `gradient` may be shared: it is never written.
  static void add_gradient(MicroBatch& batch, model::ValueId value, at::Tensor gradient);
  /// The value, which the micro-batch forgets unless recompute needs it.
  [[nodiscard]] at::Tensor take_sent(MicroBatch& batch, model::ValueId value) const;

 private:
  StageRunner(const model::ModelGraph& graph, LoweredStage stage, ParameterStore& store);
  void run_prelude(MicroBatch& batch);
  void run_segment(MicroBatch& batch, int index, bool with_graph, bool replay);
  void run_code(Code& code, const RunMode& mode);
  void enter(MicroBatch& batch, int index, bool with_graph, bool replay);
  void leave(MicroBatch& batch, int index, bool with_graph, bool replay);
  void run_keeping(MicroBatch& batch, int index, const RunMode& mode);
  void add_kept_inputs(MicroBatch& batch, int index, std::vector<c10::Storage>& kept);
  void move_out(MicroBatch& batch, int index, std::vector<c10::Storage> kept);
  void bring_back(MicroBatch& batch, int index);
  void run_backward(MicroBatch& batch, int index, bool split);
  void add_parameter_gradients(int index, std::vector<at::Tensor>::iterator gradients);
  /// `body` of each block in reverse.
  Result<void> for_blocks_in_reverse(int first_block, int end_block, const std::function<void(int)>& body);
  [[nodiscard]] bool dies_in(const MicroBatch& batch, model::ValueId value, int index) const;
  [[nodiscard]] std::string where() const;

  const model::ModelGraph& graph_;
  LoweredStage stage_;
  ParameterStore& store_;
  std::vector<at::Tensor> locals_;  // by value id (copies of parameters past them); constants and parameters always,
                                    // others while a segment runs
  std::vector<std::vector<torch::autograd::Edge>> parameter_edges_;  // by segment
  StorageSet resident_;               // of constants and parameters, where storages are emptied
  std::unique_ptr<HostMover> mover_;  // where activations are offloaded
  /// Inputs of the segment that runs which no later one reads.
  std::vector<c10::weak_intrusive_ptr<c10::StorageImpl>> entered_;
  std::deque<std::shared_ptr<MovedStorages>> leaving_;
  model::OpId current_ = -1;  // for error messages
};

}  // namespace coxswain::worker
