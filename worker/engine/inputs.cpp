#include "worker/engine/inputs.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <map>

#include "worker/engine/tensor_types.h"
#include "worker/engine/weights.h"

namespace coxswain::worker {
namespace {

std::optional<InputRole> role_by_name(const std::string& name) {
  static const std::map<std::string, InputRole> roles = {
      {"tokens", InputRole::Tokens}, {"input_ids", InputRole::Tokens},    {"targets", InputRole::Targets},
      {"labels", InputRole::Tokens}, {"attention_mask", InputRole::Ones}, {"position_ids", InputRole::Positions}};
  const auto found = roles.find(name);
  if (found == roles.end()) return std::nullopt;
  return found->second;
}

Result<void> check_input(const model::ModelGraph& graph, const model::Input& input, std::int64_t sequence_length) {
  const model::Value& value = graph.values[input.value];
  if (value.dtype != DType::Int64 || value.dims.size() != 2 || input.sample_dim != 0) {
    return Error{ErrorCode::InvalidArgument,
                 "a text cannot feed this input of the model",
                 "data.text: input " + input.name,
                 "int64 [batch, length]",
                 std::string(to_text(value.dtype)) + " with " + std::to_string(value.dims.size()) + " dims",
                 ""};
  }
  if (value.dims[1].is_constant() && value.dims[1].constant() != sequence_length) {
    return Error{
        ErrorCode::InvalidArgument,      "the sequence length is not the one the model was exported with",
        "data.sequence_length",          std::to_string(value.dims[1].constant()),
        std::to_string(sequence_length), "export the model with the wanted length, or change data.sequence_length"};
  }
  return {};
}

}  // namespace

Result<std::vector<InputRole>> input_roles(const model::ModelGraph& graph, std::int64_t sequence_length) {
  std::vector<InputRole> roles;
  std::vector<Error> problems;
  bool all_known = true;
  for (const model::Input& input : graph.inputs) {
    if (const auto checked = check_input(graph, input, sequence_length); !checked) problems.push_back(checked.error());
    const auto role = role_by_name(input.name);
    all_known = all_known && role.has_value();
    roles.push_back(role.value_or(InputRole::Tokens));
  }
  if (!all_known && roles.size() == 2) {
    roles = {InputRole::Tokens, InputRole::Targets};
  } else if (!all_known) {
    for (const model::Input& input : graph.inputs) {
      if (role_by_name(input.name)) continue;
      problems.push_back({ErrorCode::InvalidArgument, "no meaning for this input of the model",
                          "data.text: input " + input.name,
                          "tokens, input_ids, targets, labels, attention_mask, position_ids, or exactly two inputs",
                          input.name, "rename the argument of the module's forward"});
    }
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the model's inputs cannot be fed from a text",
                          std::move(problems));
  return roles;
}

at::Tensor make_text_input(InputRole role, std::int64_t samples, std::int64_t sequence_length,
                           const std::function<const unsigned char*(std::int64_t)>& window) {
  at::Tensor tensor = at::empty({samples, sequence_length}, options_of(DType::Int64));
  auto* data = tensor.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < samples; ++i) {
    const unsigned char* bytes = window(i) + (role == InputRole::Targets ? 1 : 0);
    std::int64_t* row = data + i * sequence_length;
    for (std::int64_t j = 0; j < sequence_length; ++j)
      row[j] = role == InputRole::Ones ? 1 : role == InputRole::Positions ? j : bytes[j];
  }
  return tensor;
}

at::Tensor make_up_value(const model::ModelGraph& graph, model::ValueId value, std::int64_t samples) {
  const auto sizes = sizes_of(graph, value, samples);
  at::Tensor numbers = at::empty(sizes, options_of(DType::Float32));
  fill_normal(0, "made up " + std::to_string(value), 1.0F, numbers.numel(), numbers.mutable_data_ptr<float>());
  const DType dtype = graph.values[value].dtype;
  return is_floating_point(dtype) ? numbers.to(scalar_type_of(dtype)) : numbers.gt(0).to(scalar_type_of(dtype));
}

}  // namespace coxswain::worker
