#include "worker/engine/tensor_data.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>
#include <utility>

#include "worker/engine/tensor_types.h"
#include "worker/engine/text_data.h"

namespace coxswain::worker {

Result<TensorData> TensorData::open(const model::ModelGraph& graph, const DataSettings& settings,
                                    std::int64_t num_validation) {
  COX_TRY(model::InputRows rows, model::open_input_rows(graph, settings.tensors));
  TensorData data(graph, std::move(rows));
  const auto tail =
      static_cast<std::int64_t>(std::floor(static_cast<double>(data.rows_.num_rows) * settings.validation_fraction));
  data.num_training_ = data.rows_.num_rows - tail;
  data.seed_ = settings.seed;
  if (data.num_training_ < 1)
    return Error{ErrorCode::FailedPrecondition,
                 "no sample is left to train on",
                 "validation.fraction",
                 "at least one row before the held-back tail",
                 "none",
                 "lower validation.fraction"};
  if (num_validation > tail) {
    return Error{ErrorCode::FailedPrecondition,  "the held-back tail is too short for validation",
                 "validation.fraction",          "at least " + std::to_string(num_validation) + " rows",
                 std::to_string(tail) + " rows", "raise validation.fraction or lower validation.steps"};
  }
  return data;
}

at::Tensor TensorData::training(int input, std::int64_t position, std::int64_t samples) {
  return gather(input, samples, [&](std::int64_t i) -> std::int64_t {
    const std::int64_t epoch = (position + i) / num_training_;
    if (epoch != epoch_) {
      permutation_ = permutation_of(seed_, epoch, num_training_);
      epoch_ = epoch;
    }
    return permutation_[static_cast<std::size_t>((position + i) % num_training_)];
  });
}

at::Tensor TensorData::validation(int input, std::int64_t index, std::int64_t samples) const {
  return gather(input, samples, [&](std::int64_t i) { return num_training_ + index + i; });
}

at::Tensor TensorData::gather(int input, std::int64_t samples,
                              const std::function<std::int64_t(std::int64_t)>& row_of) const {
  const model::ValueId value = graph_->inputs[input].value;
  std::vector<std::int64_t> sizes = sizes_of(*graph_, value, samples);
  sizes[0] = samples;
  at::Tensor tensor = at::empty(sizes, options_of(graph_->values[value].dtype));
  auto* target = static_cast<std::byte*>(tensor.mutable_data_ptr());
  const model::InputRows::Column& column = rows_.columns[input];
  for (std::int64_t i = 0; i < samples; ++i)
    std::memcpy(target + i * column.row.value, column.first + row_of(i) * column.row.value,
                static_cast<std::size_t>(column.row.value));
  return tensor;
}

}  // namespace coxswain::worker
