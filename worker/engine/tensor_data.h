#pragma once
// Rows of a tensor file as samples: permuted per epoch as a text's windows are, a held-back tail of rows for
// validation. Called by training_data. Threads: the engine's one. Private to worker/engine. Source: DESIGN 3.7, Data.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "common/result.h"
#include "model/input_rows.h"
#include "model/model_graph.h"
#include "worker/settings.h"

namespace coxswain::worker {

class TensorData {
 public:
  /// The last floor(rows x validation_fraction) rows are the tail. `graph` is borrowed.
  /// Errors: as open_input_rows; FailedPrecondition (no row before the tail, or a tail too short for validation).
  [[nodiscard]] static Result<TensorData> open(const model::ModelGraph& graph, const DataSettings& settings,
                                               std::int64_t num_validation);

  /// As TrainingData's.
  [[nodiscard]] at::Tensor training(int input, std::int64_t position, std::int64_t samples);
  [[nodiscard]] at::Tensor validation(int input, std::int64_t index, std::int64_t samples) const;

 private:
  TensorData(const model::ModelGraph& graph, model::InputRows rows) : graph_(&graph), rows_(std::move(rows)) {}
  [[nodiscard]] at::Tensor gather(int input, std::int64_t samples,
                                  const std::function<std::int64_t(std::int64_t)>& row_of) const;

  const model::ModelGraph* graph_;
  model::InputRows rows_;
  std::int64_t num_training_ = 0;
  std::uint64_t seed_ = 0;
  std::int64_t epoch_ = -1;  // whose order is in permutation_
  std::vector<std::uint32_t> permutation_;
};

}  // namespace coxswain::worker
