#pragma once
// Storages that a block's autograd graph holds from forward to backward, emptied in between and filled again in place:
// by running cheap operators once more (selective recompute) or from host memory (offloaded activations). The graph
// itself is made once, by the forward; it never sees that its tensors were empty, so the backward has the bits of one
// that kept them. Called by stage_runner. Threads: the engine's one. Private to worker/engine. Source: docs/adr/0016.
#include <ATen/core/TensorBody.h>

#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "model/model_graph.h"
#include "worker/engine/lowering.h"

namespace coxswain::worker {

/// What an operator of ours made besides its results and its graph node holds: copies of operands in another dtype,
/// attention's matrices. While one of these is alive on this thread such operators add to it, in the same order in
/// every run.
class MadeTensors {
 public:
  MadeTensors();
  ~MadeTensors();
  MadeTensors(const MadeTensors&) = delete;
  MadeTensors& operator=(const MadeTensors&) = delete;
  static bool wanted();
  static void add(const at::Tensor& tensor);
  [[nodiscard]] std::vector<at::Tensor> take() { return std::move(tensors_); }

 private:
  MadeTensors* outer_;
  std::vector<at::Tensor> tensors_;
};

/// A storage that was emptied because its call runs again: tensor `index` of what call `call` makes, its results first.
struct EmptiedStorage {
  int call = 0, index = 0;
  c10::Storage storage;
};

/// What a forward leaves behind for the backward besides the graph.
struct BlockStorages {
  std::vector<std::pair<model::ValueId, at::Tensor>> held;  // that the calls which run again read
  std::vector<EmptiedStorage> emptied;
  std::vector<c10::Storage> kept;  // the others that the graph holds; collected where they are to be moved
};

/// Of constants and parameters: they stay where they are.
using StorageSet = std::unordered_set<const c10::StorageImpl*>;

/// Runs a block's calls with graph. Storages of calls that run again are emptied as soon as the forward has used them.
class KeepingRun {
 public:
  /// `locals`: by value id, with all that the block reads. `collect`: fill BlockStorages::kept. All are borrowed.
  KeepingRun(const model::ModelGraph& graph, Segment& segment, std::vector<at::Tensor>& locals,
             const StorageSet& resident, bool collect);
  /// `at_call(op)` before each. Throws what libtorch throws.
  template <class AtCall>
  void run(const RunMode& mode, AtCall at_call) {
    for (std::size_t i = 0; i < segment_.code.calls.size(); ++i) {
      at_call(segment_.code.calls[i].op());
      run_call(i, mode);
    }
  }
  /// After the block was left: what leaves it stays as it is.
  [[nodiscard]] BlockStorages take();

 private:
  struct Entry {
    EmptiedStorage storage;
    bool again = false;
    int holders = 0;  // tensors of the forward
  };
  using Key = const c10::StorageImpl*;
  [[nodiscard]] bool runs_again(std::size_t call) const { return !segment_.again.empty() && segment_.again[call] != 0; }
  void run_call(std::size_t i, const RunMode& mode);
  void note(std::size_t call, int index, const at::Tensor& tensor);
  void settle(Key key);

  const model::ModelGraph& graph_;
  Segment& segment_;
  std::vector<at::Tensor>& locals_;
  const StorageSet& resident_;
  const bool collect_;
  StorageSet received_;
  /// Of those, so that no storage made here has the address of one that was freed.
  std::vector<c10::weak_intrusive_ptr<c10::StorageImpl>> addresses_;
  std::unordered_map<Key, Entry> entries_;
  std::vector<Key> order_;
  BlockStorages result_;
};

/// Runs what runs again, without graph, into the storages that were emptied. Operators see tensors that require a
/// gradient where the forward's did: some of libtorch's choose their kernel by that.
void run_again(const model::ModelGraph& graph, Segment& segment, std::vector<at::Tensor>& locals, const RunMode& mode,
               BlockStorages storages);

}  // namespace coxswain::worker
