#pragma once
// ZeRO's part of a ParameterStore: the parameters of one bucket, of whose float32 masters, moments and (from ZeRO 2 on)
// gradients this rank holds one piece, a run of elements of all of them in a row. What blocks compute with is whole: at
// all times (ZeRO 1, 2), or from a gather to a release (ZeRO 3), always in the same storage, so that views and what
// autograd saved stay valid. Called by parameter_store. Threads: the engine's one. Private to worker/engine.
// Source: DESIGN 3.7, Rajbhandari et al. 2020.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "plan/plan.h"
#include "worker/engine/mesh_link.h"
#include "worker/engine/weights.h"

namespace coxswain::worker {

/// How a storage is shared out, and how its parameters are read.
struct Sharding {
  int zero_stage = 0;          // 0: whole on every rank
  int holders = 1, index = 0;  // ranks that hold it together, and which of them this is
  bool releases = false;       // ZeRO 3: not there between uses
  /// In mixed precision, by parameter of the storage: whether some block reads the master, and the copy.
  std::vector<char> reads_master, reads_copy;
};

/// Elements [begins[r], begins[r + 1]) are holder r's: nearly equal, each on a cache line. `count`: a multiple of 16.
[[nodiscard]] std::vector<std::int64_t> piece_begins(std::int64_t count, int holders);

/// What a rank updates of a parameter: views, row-major, of no elements where that is nothing.
struct StateOfParameter {
  std::int64_t first = 0;  // of the parameter's elements, that the views begin with
  at::Tensor values, first_moment, second_moment;
};

class ShardedStorage {
 public:
  /// `view`: which parts of the parameters, on a mesh (`graph` is the part's). Errors: as WeightSource.
  [[nodiscard]] static Result<ShardedStorage> make(const model::ModelGraph& graph, const WeightSource& weights,
                                                   const std::vector<int>& parameters, Sharding sharding,
                                                   plan::Precision precision, const LocalView* view = nullptr,
                                                   bool state_on_host = false);

  /// Autograd leaves of the i-th parameter: what is read as a master, and its 16-bit copy; undefined where not read.
  [[nodiscard]] const at::Tensor& leaf(std::size_t i) const { return entries_[i].leaf; }
  [[nodiscard]] const at::Tensor& copy(std::size_t i) const { return entries_[i].copy; }

  void begin_step();
  /// Adds to the whole gradient, which comes into being here.
  void add_gradient(std::size_t i, const at::Tensor& gradient);

  /// Of a reduce-scatter: elements by holder, the whole gradient (zeros where a parameter got none), and room for the
  /// piece of the sum. The next gradient starts anew.
  struct Scatter {
    at::Tensor whole, piece;
  };
  [[nodiscard]] const std::vector<std::int64_t>& piece_counts() const { return counts_; }
  [[nodiscard]] Scatter& begin_scatter();
  /// The piece has been summed: the step's gradient of it, or one micro-batch's part of that.
  void end_scatter();

  /// Of a gather: the values as bytes, with this rank's own filled in, and bytes by holder.
  [[nodiscard]] const at::Tensor& begin_gather();
  [[nodiscard]] const std::vector<std::int64_t>& byte_counts() const { return byte_counts_; }
  [[nodiscard]] int index() const { return sharding_.index; }
  [[nodiscard]] std::int64_t own_byte() const;  // where this rank's bytes begin
  void end_gather();
  /// ZeRO 3: the values are gone until the next gather.
  void release();
  /// ZeRO 3: whether the compute action that starts now is the last before the next gather. Its gradients come when all
  /// of them are computed, so that the values can make room for the whole gradient.
  void set_last_use(bool last) { last_use_ = last; }

  /// This rank's piece of masters and of the step's gradient, and what the optimizer keeps of it.
  [[nodiscard]] const at::Tensor& masters() const { return masters_; }
  [[nodiscard]] const at::Tensor& gradient();  // zeros where nothing was reduced
  [[nodiscard]] const at::Tensor& first_moment() const { return first_moment_; }
  [[nodiscard]] const at::Tensor& second_moment() const { return second_moment_; }
  /// The masters have been updated; what was gathered is of old values. Drops what only the update needed.
  void end_update();

  [[nodiscard]] StateOfParameter state_of(std::size_t i) const;
  /// Of the i-th parameter all elements, as float32 in a row: masters, and what is computed with where it is there.
  /// After the last one: finish_values.
  void set_values(std::size_t i, const at::Tensor& values);
  void finish_values() { fill_second_copies(); }
  [[nodiscard]] std::int64_t num_elements() const { return count_; }

 private:
  struct Entry {
    std::int64_t offset = 0, count = 0;  // elements, in the order of the storage
    std::vector<std::int64_t> dims;
    at::Tensor leaf, copy;
    bool filled = false;
    at::Tensor waiting;  // float32: what came before there was a whole gradient
  };
  ShardedStorage() = default;
  void lay_out(const model::ModelGraph& graph, const std::vector<int>& parameters);
  void make_leaves();
  Result<void> read_weights(const model::ModelGraph& graph, const WeightSource& weights,
                            const std::vector<int>& parameters, const LocalView* view);
  [[nodiscard]] std::int64_t byte_of(std::int64_t element) const;
  [[nodiscard]] at::Tensor wide(std::int64_t begin, std::int64_t end) const;    // float32 values [begin, end)
  [[nodiscard]] at::Tensor narrow(std::int64_t begin, std::int64_t end) const;  // 16-bit ones
  [[nodiscard]] at::Tensor gradient_view(std::size_t i) const;
  void add_to_whole(std::size_t i, const at::Tensor& gradient);
  void make_whole_gradient();
  void write_own_values();
  void fill_second_copies();

  Sharding sharding_;
  bool mixed_ = false;
  DType half_ = DType::BFloat16;             // of copies
  std::int64_t count_ = 0, wide_count_ = 0;  // elements; the first of them are float32, the others of 16 bits
  std::int64_t begin_ = 0, end_ = 0;         // of this rank's piece
  std::vector<std::int64_t> counts_, byte_counts_;
  std::vector<Entry> entries_;
  at::Tensor values_;         // bytes
  at::Tensor second_copies_;  // 16-bit, of parameters that are read both ways
  bool present_ = true, last_use_ = false;
  at::Tensor masters_, first_moment_, second_moment_;
  at::Tensor whole_gradient_, gradient_;  // gradient_: of the piece
  bool reduced_ = false;                  // gradient_ holds something of this step
  Scatter scatter_;
};

}  // namespace coxswain::worker
