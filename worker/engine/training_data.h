#pragma once
// What the model's inputs are fed with: windows of a text, or rows of a tensor file. Every rank computes the same order
// of samples from the seed, so a step's samples depend on no plan. Called by engine and profile. Threads: the engine's
// one. Private to worker/engine. Source: DESIGN 3.7, Data.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "worker/engine/inputs.h"
#include "worker/engine/tensor_data.h"
#include "worker/engine/text_data.h"
#include "worker/settings.h"

namespace coxswain::worker {

class TrainingData {
 public:
  /// `num_validation` = samples that validation will ask for. `graph` is borrowed.
  /// Errors: as TextData::open and input_roles, or as TensorData::open; FailedPrecondition (neither is given).
  [[nodiscard]] static Result<TrainingData> open(const model::ModelGraph& graph, const DataSettings& settings,
                                                 std::int64_t num_validation);

  /// Of graph.inputs[input], training samples [position, position + samples) counted since the first step.
  [[nodiscard]] at::Tensor training(int input, std::int64_t position, std::int64_t samples);
  /// Samples [index, index + samples) of the held-back tail. Requires: they lie below num_validation of open.
  [[nodiscard]] at::Tensor validation(int input, std::int64_t index, std::int64_t samples) const;

 private:
  TrainingData() = default;
  std::optional<TextData> text_;
  std::vector<InputRole> roles_;
  std::optional<TensorData> tensors_;
};

}  // namespace coxswain::worker
