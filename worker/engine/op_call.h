#pragma once
// One operator of the graph, ready to run: the dispatcher's handle, a stack with every constant argument in place (dims
// evaluated for this rank's samples), and where tensors go. Called by lowering, once an operator; run once a
// micro-batch. Threads: one at a time (the stack is reused). Private to worker/engine. Source: DESIGN 3.7.
#include <ATen/core/TensorBody.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "worker/engine/casting.h"
#include "worker/engine/dropout.h"
#include "worker/engine/mesh_link.h"

namespace coxswain::worker {

struct ExpertCounter;

/// What an operator may depend on besides its arguments.
struct RunMode {
  bool training = true;             // false: nothing is kept for backward
  bool running_statistics = false;  // batch norms use them (evaluation)
  bool dropout = true;              // false: dropout is the identity
  bool replay = false;              // recompute: running statistics stay as they are
  std::uint64_t seed = 0;
  std::int64_t step = 0;
  std::int64_t first_sample = 0;  // of this rank's micro-batch, inside the global batch
};

/// Id past the graph's values under which a parameter's 16-bit copy stands among them.
[[nodiscard]] inline model::ValueId copy_of(const model::ModelGraph& graph, int parameter) {
  return static_cast<model::ValueId>(graph.values.size()) + parameter;
}

class OpCall {
 public:
  /// `view`: where `graph` is the part that a position of a mesh runs, the whole; borrowed.
  /// Errors: InvalidArgument (no kernel, arguments that do not fit the operator's schema).
  [[nodiscard]] static Result<OpCall> make(const model::ModelGraph& graph, model::OpId op, std::int64_t samples,
                                           Casting casting = {}, const LocalView* view = nullptr);

  /// Has choices of experts among its outputs counted in training, once for each micro-batch; borrowed.
  void count_choices(const ExpertCounter& counter) { counter_ = &counter; }

  /// Takes inputs from and puts outputs into `values` (by value id). Throws what libtorch throws.
  void run(std::vector<at::Tensor>& values, const RunMode& mode);

  [[nodiscard]] model::OpId op() const { return op_; }
  [[nodiscard]] bool reads_copies() const { return casting_.reads_copies; }

 private:
  enum class Special { None, Dropout, Attention, BatchNorm, Mesh };
  struct TensorSlot {
    int position = 0;
    model::ValueId value = -1;
  };
  struct ListSlot {
    int position = 0;
    bool elements_optional = false;
    std::vector<model::ValueId> values;  // -1: none
  };

  OpCall() = default;
  void run_uncounted(std::vector<at::Tensor>& values, const RunMode& mode);
  static Result<OpCall> make_mesh_call(const model::ModelGraph& graph, OpCall call, const LocalView* view);
  Result<void> add_argument(const model::ModelGraph& graph, const model::Argument::Variant& value,
                            const c10::Argument& schema, const model::Bindings& bindings);
  [[nodiscard]] model::ValueId add_input(const model::ModelGraph& graph, model::ValueId value);
  [[nodiscard]] std::optional<c10::ScalarType> compute_dtype(const std::vector<at::Tensor>& values) const;
  [[nodiscard]] at::Tensor cast(const std::vector<at::Tensor>& values, model::ValueId value,
                                std::optional<c10::ScalarType> dtype) const;
  void find_special();
  void locate_samples(const model::ModelGraph& graph, model::ValueId value, const LocalView* view);
  void run_mesh_kernel(std::vector<at::Tensor>& values, const RunMode& mode);
  void run_dropout(std::vector<at::Tensor>& values, const RunMode& mode);
  bool run_attention(std::vector<at::Tensor>& values, const RunMode& mode);
  void fill_stack(const std::vector<at::Tensor>& values);
  void store_outputs(std::vector<at::Tensor>& values);

  std::optional<c10::OperatorHandle> handle_;  // none: an operator of the mesh
  model::OpId op_ = -1;
  model::OpId whole_op_ = -1;  // what op_ is a part of; random numbers count by it
  bool grad_enabled_ = true;
  Casting casting_;
  std::vector<model::ValueId> activations_;  // inputs that parameters influence, without parameters
  Special special_ = Special::None;
  double dropout_probability_ = 0;
  DropoutPlace place_;  // but the sample
  MeshKernel mesh_kernel_ = nullptr;
  model::Op mesh_op_;  // its arguments; the graph that is lowered may go
  const MeshLink* link_ = nullptr;
  const ExpertCounter* counter_ = nullptr;
  std::string where_;                                    // Mesh: for errors
  int training_position_ = -1, momentum_position_ = -1;  // BatchNorm
  std::vector<c10::IValue> arguments_;                   // constants; tensors are put in per run
  std::vector<TensorSlot> tensors_;
  std::vector<ListSlot> lists_;
  std::vector<model::ValueId> outputs_;
  std::vector<c10::IValue> stack_;
};

/// Whether libtorch (or this engine) can run `target` on a CPU, deterministically under our random numbers.
[[nodiscard]] bool has_kernel(const std::string& target);

}  // namespace coxswain::worker
