#pragma once
// Which parameters of a rank's stage lie in which storage, and so what each collective of gradients or values moves:
// one storage a bucket, one for its tables of experts that replicas divide, one for what a mesh shares (REDUCE_SHARED),
// under ZeRO 2 and 3 one for what several blocks use, one a tied parameter. Called by engine, once. Threads: the
// engine's one. Private to worker/engine. Source: docs/plan.md.
#include <map>
#include <vector>

#include "collective/communicator.h"
#include "plan/program.h"
#include "worker/engine/mesh_setup.h"
#include "worker/engine/parameter_store.h"

namespace coxswain::worker {

/// Where a rank stands; nothing is copied.
struct StagePlace {
  const model::ModelGraph& graph;  // whole
  const plan::Plan& plan;
  int rank = 0;
  const std::vector<plan::Group>& groups;  // plan::make_groups
  const std::vector<plan::TiedParameter>& tied;
  const std::vector<collective::Communicator*>& communicators;
  const MeshSetup& mesh;
};

/// A parameter of a bucket is one whose lowest block of the stage lies in it, since its gradient is whole only then.
/// Copies of a tied parameter stay equal to the bit without being sent: all start from the same weights; REDUCE_TIED
/// and REDUCE_NORM leave the same bits on every rank (Communicator::all_reduce promises it); and the update goes
/// element by element, by the same instructions for every element and any number of threads, since a storage has a
/// multiple of any vector's length. Processors with other vector instructions may round otherwise (docs/adr/0007).
class StageStorages {
 public:
  explicit StageStorages(const StagePlace& place);

  /// To make the store of; once.
  [[nodiscard]] std::vector<StorageSpec> take_specs() { return std::move(specs_); }
  /// Of the store, whose gradients or values `action` moves or, a compute action, whose bucket it runs on; -1: none.
  [[nodiscard]] int of(const plan::Action& action) const;

 private:
  void add_buckets(const StagePlace& place);
  void sort_parameters(const StagePlace& place);
  void add_tied(const StagePlace& place);
  /// Of the tables of the bucket that begins at the block.
  int experts_of(const StagePlace& place, int first_block);

  std::vector<StorageSpec> specs_;
  std::map<int, int> of_bucket_, of_experts_;  // by first block
  std::vector<int> of_tied_;
  int of_shared_ = -1, of_reused_ = -1;
};

}  // namespace coxswain::worker
