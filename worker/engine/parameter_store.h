#pragma once
// A stage's parameters, gradients and optimizer state in flat float32 storages, one a gradient bucket and one a tied
// parameter; in mixed precision beside them the 16-bit copies that are computed with. Autograd sees views. One
// collective, norm and optimizer call serves a whole storage. Where ZeRO shares a storage out (sharded_storage), it is
// this rank's piece that counts and is updated. Called by stage_runner (gradients) and engine (collectives, update).
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
#include "worker/engine/boxes.h"
#include "worker/engine/mesh_link.h"
#include "worker/engine/sharded_storage.h"
#include "worker/engine/weights.h"
#include "worker/settings.h"

namespace coxswain::worker {

/// Parameters (indices into graph.parameters) that share a storage.
struct StorageSpec {
  std::vector<int> parameters;
  bool in_norm = true;  // false: a tied copy, whose owner counts the gradient
  /// Those that another position or replica counts in the norm, where they are whole.
  std::vector<int> not_in_norm;
  /// Where the gradients live when they are to be reduced without a copy; empty: the allocator.
  std::function<Result<std::shared_ptr<void>>(Bytes)> allocate_gradient;
  Sharding sharding = {};
  std::vector<int> copied = {};  // of `parameters`, those that have a 16-bit copy
};

class ParameterStore {
 public:
  /// Trainable parameters only; `view`: which parts of them, on a mesh (`graph` is the part's); `state_on_host`:
  /// moments and, in mixed precision, masters are offloaded; what blocks read is on the device.
  /// Errors: as WeightSource; Unimplemented (not float32).
  [[nodiscard]] static Result<ParameterStore> make(const model::ModelGraph& graph, const WeightSource& weights,
                                                   std::vector<StorageSpec> specs, bool with_optimizer,
                                                   plan::Precision precision = plan::Precision::Float32,
                                                   const LocalView* view = nullptr, bool state_on_host = false);

  /// The autograd leaf of graph.parameters[parameter]: the float32 values (masters or, where these are on the host, a
  /// copy), or their 16-bit copy; undefined where it has none.
  [[nodiscard]] const at::Tensor& leaf(int parameter) const { return slots_[slot_of_[parameter]].leaf; }
  [[nodiscard]] const at::Tensor& copy_leaf(int parameter) const { return slots_[slot_of_[parameter]].copy; }
  [[nodiscard]] bool has(int parameter) const { return slot_of_[parameter] >= 0; }

  /// From now on the first gradient of each parameter is copied, later ones are added.
  void begin_step();
  void add_gradient(int parameter, const at::Tensor& gradient);
  /// Parameters of `storage` that got no gradient this step get zeros. Call before reading the storage's gradient.
  void complete_gradient(int storage);
  [[nodiscard]] const at::Tensor& gradient(int storage) const { return storages_[storage].gradient; }
  /// The gradient as ranks that hold other parts of its parameters add it up: whole parameters, one behind another as
  /// in the storage of a rank that holds them whole, which has its gradient itself for this; else a tensor with zeros
  /// where others hold what it lacks. finish_sum takes the parts out again.
  [[nodiscard]] at::Tensor prepare_sum(int storage);
  void finish_sum(int storage);
  [[nodiscard]] at::Tensor gradient_of(int parameter) const { return slots_[slot_of_[parameter]].gradient; }
  [[nodiscard]] const at::Tensor& copies(int storage) const { return storages_[storage].copies; }
  [[nodiscard]] const at::Tensor& values(int storage) const { return storages_[storage].values; }
  [[nodiscard]] int num_storages() const { return static_cast<int>(storages_.size()); }
  /// Null where every rank holds all of the storage.
  [[nodiscard]] ShardedStorage* sharded(int storage) { return storages_[storage].sharded.get(); }
  /// What this rank updates of a parameter. Requires: made with an optimizer.
  [[nodiscard]] StateOfParameter state_of(int parameter) const;
  /// Of a parameter all of this rank's part, as float32 in a row. After the last one: finish_values.
  void set_values(int parameter, const at::Tensor& values);
  void finish_values();

  /// Sum of squares of the gradients that are in the norm here, in float64 and in an order that no thread count
  /// changes: of this rank's pieces, and of what others have too where it counts here.
  [[nodiscard]] double squared_norm();
  /// AdamW on every storage, then the copies anew; gradients are scaled by `gradient_scale` first. `step` counts
  /// from 1.
  void update(const OptimizerSettings& optimizer, double learning_rate, double gradient_scale, std::int64_t step);
  [[nodiscard]] std::int64_t num_elements() const;

 private:
  /// Elements of neighbouring parameters that have copies of a kind.
  struct CopyRun {
    std::int64_t offset = 0, copy_offset = 0, count = 0;
  };
  struct Storage {
    std::shared_ptr<void> foreign;  // of the gradient, where registered
    at::Tensor values, copies, gradient, first_moment, second_moment;
    std::vector<int> slots;
    bool in_norm = true;
    at::Tensor wide;  // float32 copies of masters that are on the host and that blocks read
    std::vector<CopyRun> copy_runs, wide_runs;
    void make_copies();
    bool counts_all = true;                   // no slot that another position counts
    std::int64_t sum_elements = 0;            // where a parameter is cut: of whole parameters
    at::Tensor sum;                           // while they are added up
    std::unique_ptr<ShardedStorage> sharded;  // instead of the tensors above
  };
  struct Slot {
    at::Tensor leaf, copy, gradient;
    std::int64_t offset = 0, count = 0;  // of the storage's elements, where that is not shared out
    bool in_norm = true;
    std::int64_t sum_offset = 0;
    std::vector<std::int64_t> whole_sizes;  // of a cut parameter
    RowRuns rows;                           // of it, in the whole; none: not cut
    bool filled = false;
    int storage = 0, position = 0;  // among its parameters
  };
  static std::int64_t add_copy(std::vector<CopyRun>& runs, bool has_copy, std::int64_t offset, std::int64_t elements,
                               std::int64_t& copied);
  void add_sharded(StorageSpec spec, ShardedStorage sharded);
  ParameterStore() = default;
  [[nodiscard]] static at::Tensor whole_of(const Slot& slot, const at::Tensor& sum);

  std::vector<Storage> storages_;
  std::vector<Slot> slots_;
  std::vector<int> slot_of_;  // by parameter, -1 where it is not here
};

}  // namespace coxswain::worker
