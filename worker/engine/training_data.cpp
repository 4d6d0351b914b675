#include "worker/engine/training_data.h"

#include <ATen/core/Tensor.h>

namespace coxswain::worker {

Result<TrainingData> TrainingData::open(const model::ModelGraph& graph, const DataSettings& settings,
                                        std::int64_t num_validation) {
  TrainingData data;
  if (!settings.tensors.empty()) {
    COX_TRY(TensorData tensors, TensorData::open(graph, settings, num_validation));
    data.tensors_ = std::move(tensors);
    return data;
  }
  if (settings.text.empty())
    return Error{ErrorCode::FailedPrecondition, "no training data", "data", "a text or a file of tensors", "", ""};
  COX_TRY(data.roles_, input_roles(graph, settings.sequence_length));
  COX_TRY(TextData text, TextData::open(settings, num_validation));
  data.text_ = std::move(text);
  return data;
}

at::Tensor TrainingData::training(int input, std::int64_t position, std::int64_t samples) {
  if (tensors_) return tensors_->training(input, position, samples);
  return make_text_input(roles_[input], samples, text_->sequence_length(),
                         [&](std::int64_t i) { return text_->training_window(position + i); });
}

at::Tensor TrainingData::validation(int input, std::int64_t index, std::int64_t samples) const {
  if (tensors_) return tensors_->validation(input, index, samples);
  return make_text_input(roles_[input], samples, text_->sequence_length(),
                         [&](std::int64_t i) { return text_->validation_window(index + i); });
}

}  // namespace coxswain::worker
