#pragma once
// A stage's parameters, gradients and optimizer state in flat float32 storages, one a gradient bucket and one a tied
// parameter; under bfloat16 beside them the copies that are computed with. Autograd sees views. One collective, norm
// and optimizer call serves a whole storage. Called by stage_runner (gradients) and engine (collectives, update).
// Threads: the engine's one. Private to worker/engine. Source: DESIGN 3.7 (no AccumulateGrad).
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"
#include "worker/engine/weights.h"
#include "worker/settings.h"

namespace coxswain::worker {

/// Parameters (indices into graph.parameters) that share a storage.
struct StorageSpec {
  std::vector<int> parameters;
  bool in_norm = true;  // false: a tied copy, whose owner counts the gradient
  /// Where the gradients live when they are to be reduced without a copy; empty: the allocator.
  std::function<Result<std::shared_ptr<void>>(Bytes)> allocate_gradient;
};

class ParameterStore {
 public:
  /// Trainable parameters only. Errors: as WeightSource; Unimplemented (not float32).
  [[nodiscard]] static Result<ParameterStore> make(const model::ModelGraph& graph, const WeightSource& weights,
                                                   std::vector<StorageSpec> specs, bool with_optimizer,
                                                   plan::Precision precision = plan::Precision::Float32);

  /// The autograd leaf of graph.parameters[parameter]: the float32 values (masters), or their bfloat16 copy.
  [[nodiscard]] const at::Tensor& leaf(int parameter) const { return slots_[slot_of_[parameter]].leaf; }
  [[nodiscard]] const at::Tensor& copy_leaf(int parameter) const { return slots_[slot_of_[parameter]].copy; }
  [[nodiscard]] bool has(int parameter) const { return slot_of_[parameter] >= 0; }

  /// From now on the first gradient of each parameter is copied, later ones are added.
  void begin_step();
  void add_gradient(int parameter, const at::Tensor& gradient);
  /// Parameters of `storage` that got no gradient this step get zeros. Call before reading the storage's gradient.
  void complete_gradient(int storage);
  [[nodiscard]] const at::Tensor& gradient(int storage) const { return storages_[storage].gradient; }
  [[nodiscard]] at::Tensor gradient_of(int parameter) const { return slots_[slot_of_[parameter]].gradient; }
  [[nodiscard]] const at::Tensor& copies(int storage) const { return storages_[storage].copies; }
  [[nodiscard]] const at::Tensor& values(int storage) const { return storages_[storage].values; }
  [[nodiscard]] int num_storages() const { return static_cast<int>(storages_.size()); }

  /// Sum of squares of the gradients that are in the norm here, in float64 and in an order that no thread count
  /// changes.
  [[nodiscard]] double squared_norm() const;
  /// AdamW on every storage, then the copies anew; gradients are scaled by `gradient_scale` first. `step` counts
  /// from 1.
  void update(const OptimizerSettings& optimizer, double learning_rate, double gradient_scale, std::int64_t step);
  [[nodiscard]] std::int64_t num_elements() const;

 private:
  struct Storage {
    std::shared_ptr<void> foreign;  // of the gradient, where registered
    at::Tensor values, copies, gradient, first_moment, second_moment;
    std::vector<int> slots;
    bool in_norm = true;
  };
  struct Slot {
    at::Tensor leaf, copy, gradient;
    bool filled = false;
  };
  ParameterStore() = default;

  std::vector<Storage> storages_;
  std::vector<Slot> slots_;
  std::vector<int> slot_of_;  // by parameter, -1 where it is not here
};

}  // namespace coxswain::worker
