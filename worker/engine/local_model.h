#pragma once
// A run of blocks on this rank alone, without plan or peers: what the profile times and what the self-test of a model
// runs. Threads: one. Private to worker/engine.
#include <memory>
#include <optional>
#include <vector>

#include "common/result.h"
#include "worker/engine/parameter_store.h"
#include "worker/engine/stage_runner.h"
#include "worker/settings.h"

namespace coxswain::worker {

/// Weights and parameters of blocks [first_block, end_block) in one storage.
class LocalModel {
 public:
  [[nodiscard]] static Result<LocalModel> make(const model::ModelGraph& graph, int first_block, int end_block,
                                               std::uint64_t seed, bool with_optimizer,
                                               plan::Precision precision = plan::Precision::Float32);

  /// Calls for micro-batches of `samples`. One at a time: the earlier one is dropped.
  Result<void> lower(std::int64_t samples);
  [[nodiscard]] StageRunner& runner() { return *runner_; }
  [[nodiscard]] ParameterStore& store() { return *store_; }
  /// Made-up values for everything that earlier stages would send.
  void fill_received(MicroBatch& batch) const;
  /// Sets the gradients of loss terms (coefficient / their count in this batch, or 1) and ones for what would be sent.
  Result<void> fill_gradients(MicroBatch& batch, const std::vector<double>& counts) const;

 private:
  LocalModel(const model::ModelGraph& graph, int first_block, int end_block, plan::Precision precision)
      : graph_(&graph), first_block_(first_block), end_block_(end_block), precision_(precision) {}
  const model::ModelGraph* graph_;
  int first_block_, end_block_;
  plan::Precision precision_;
  std::int64_t samples_ = 0;
  std::optional<WeightSource> weights_;
  std::unique_ptr<ParameterStore> store_;  // the runner keeps a reference
  std::unique_ptr<StageRunner> runner_;
};

}  // namespace coxswain::worker
