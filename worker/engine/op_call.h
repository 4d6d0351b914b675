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
#include "model/mixed_policy.h"
#include "model/model_graph.h"

namespace coxswain::worker {

using model::ComputeRule;

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

/// How the inputs of one operator are cast.
struct Casting {
  ComputeRule rule = ComputeRule::AsStored;
  bool reads_copies = false;  // of parameters: their bfloat16 copies, not the float32 masters
};

/// Id past the graph's values under which a parameter's bfloat16 copy stands among them.
[[nodiscard]] inline model::ValueId copy_of(const model::ModelGraph& graph, int parameter) {
  return static_cast<model::ValueId>(graph.values.size()) + parameter;
}

/// Index of the trainable parameter that `value` is; -1: none.
[[nodiscard]] int trainable_parameter(const model::ModelGraph& graph, model::ValueId value);

class OpCall {
 public:
  /// Errors: InvalidArgument (no kernel, arguments that do not fit the operator's schema).
  [[nodiscard]] static Result<OpCall> make(const model::ModelGraph& graph, model::OpId op, std::int64_t samples,
                                           Casting casting = {});

  /// Takes inputs from and puts outputs into `values` (by value id). Throws what libtorch throws.
  void run(std::vector<at::Tensor>& values, const RunMode& mode);

  [[nodiscard]] model::OpId op() const { return op_; }
  [[nodiscard]] bool reads_copies() const { return casting_.reads_copies; }

 private:
  enum class Special { None, Dropout, Attention, BatchNorm };
  struct TensorSlot {
    int position = 0;
    model::ValueId value = -1;
  };
  struct ListSlot {
    int position = 0;
    bool elements_optional = false;
    std::vector<model::ValueId> values;  // -1: none
  };

  explicit OpCall(c10::OperatorHandle handle) : handle_(std::move(handle)) {}
  Result<void> add_argument(const model::ModelGraph& graph, const model::Argument::Variant& value,
                            const c10::Argument& schema, const model::Bindings& bindings);
  [[nodiscard]] model::ValueId add_input(const model::ModelGraph& graph, model::ValueId value);
  [[nodiscard]] std::optional<c10::ScalarType> compute_dtype(const std::vector<at::Tensor>& values) const;
  [[nodiscard]] at::Tensor cast(const std::vector<at::Tensor>& values, model::ValueId value,
                                std::optional<c10::ScalarType> dtype) const;
  void find_special(const model::ModelGraph& graph, const model::Op& op);
  void run_dropout(std::vector<at::Tensor>& values, const RunMode& mode);
  bool run_attention(std::vector<at::Tensor>& values, const RunMode& mode);
  void fill_stack(const std::vector<at::Tensor>& values);
  void store_outputs(std::vector<at::Tensor>& values);

  c10::OperatorHandle handle_;
  model::OpId op_ = -1;
  bool grad_enabled_ = true;
  Casting casting_;
  std::vector<model::ValueId> activations_;  // inputs that parameters influence, without parameters
  Special special_ = Special::None;
  double dropout_probability_ = 0;
  std::int64_t rows_per_sample_ = 0;  // on the sample dim; 0: no sample dim
  int sample_dim_ = 0;
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
