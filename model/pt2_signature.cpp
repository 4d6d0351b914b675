// Inputs of the graph: parameters, buffers and constants with their place in the file, and the user's tensors.
#include <algorithm>

#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

constexpr std::int64_t kMaxConfigBytes = std::int64_t{256} << 20;
constexpr std::int64_t kMaxElements = std::int64_t{1} << 48;

std::string storage_key(const WeightLocation& location, const std::vector<std::int64_t>& dims) {
  std::string key = location.entry + "@" + std::to_string(location.storage_offset);
  for (const auto* numbers : {&dims, &location.strides}) {
    key += ";";
    for (const std::int64_t number : *numbers) key += std::to_string(number) + ",";
  }
  return key;
}

// Sizes and strides of weights are plain numbers.
std::optional<std::vector<std::int64_t>> plain_numbers(const Json& list) {
  if (!list.is_array()) return std::nullopt;
  std::vector<std::int64_t> numbers;
  for (const Json& item : list.array()) {
    if (!item["as_int"].is_integer() || item["as_int"].integer() < 0) return std::nullopt;
    numbers.push_back(item["as_int"].integer());
  }
  return numbers;
}

// Elements from the start of the storage to the tensor's last one; nothing when absurd.
std::optional<std::int64_t> extent(const WeightLocation& location, const std::vector<std::int64_t>& dims) {
  if (dims.size() != location.strides.size()) return std::nullopt;
  if (std::find(dims.begin(), dims.end(), 0) != dims.end()) return 0;
  std::int64_t last = location.storage_offset;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(dims[i] - 1, location.strides[i], &reach) || __builtin_add_overflow(last, reach, &last))
      return std::nullopt;
  }
  return last < 0 || last > kMaxElements ? std::nullopt : std::optional(last + 1);
}

std::string name_in_spec(const std::string& kind, const Json& spec) {
  const std::string key = kind == "parameter" ? "parameter_name"
                          : kind == "buffer"  ? "buffer_name"
                                              : "tensor_constant_name";
  return text_or_empty(spec[key]);
}

}  // namespace

Result<void> Pt2Reader::read_weights(const std::string& folder, const std::string& config) {
  const std::string path = root_ + "/data/" + folder + "/" + config;
  if (!archive_.contains(path)) return {};
  COX_TRY(const std::string text, archive_.read(path, kMaxConfigBytes));
  COX_TRY(const Json document, parse_json(text));
  if (!document["config"].is_object())
    return Error{ErrorCode::DataLoss, "the list of weights is damaged", path, "", "", ""};
  for (const auto& [name, entry] : document["config"].object()) {
    COX_TRY(Weight weight, read_weight(folder, name, entry));
    weights_.emplace(name, std::move(weight));
  }
  return {};
}

Result<Pt2Reader::Weight> Pt2Reader::read_weight(const std::string& folder, const std::string& name,
                                                 const Json& entry) const {
  const Json& meta = entry["tensor_meta"];
  const auto damaged = [&](std::string what) {
    return Error{ErrorCode::DataLoss,     std::move(what), archive_.path().string() + ": " + name, "", "",
                 "export the model again"};
  };
  if (entry["use_pickle"].is_bool() && entry["use_pickle"].boolean()) {
    return Error{ErrorCode::Unimplemented,
                 "a weight is stored as a Python object",
                 archive_.path().string() + ": " + name,
                 "plain tensors",
                 "a tensor subclass or quantised tensor",
                 "convert it to a plain tensor before exporting"};
  }
  Weight weight;
  const auto dims = plain_numbers(meta["sizes"]), strides = plain_numbers(meta["strides"]);
  const auto dtype = meta["dtype"].is_integer() ? dtype_of_code(meta["dtype"].integer()) : std::nullopt;
  const Json& offset = meta["storage_offset"]["as_int"];
  if (!dims || !strides || !offset.is_integer() || offset.integer() < 0)
    return damaged("the description of a weight is damaged");
  if (!dtype) {
    return Error{ErrorCode::Unimplemented,
                 "unknown element type of a weight",
                 archive_.path().string() + ": " + name,
                 "",
                 "",
                 ""};
  }
  weight.dims = *dims;
  weight.dtype = *dtype;
  weight.trainable = meta["requires_grad"].is_bool() && meta["requires_grad"].boolean();
  weight.location.entry = root_ + "/data/" + folder + "/" + text_or_empty(entry["path_name"]);
  weight.location.storage_offset = offset.integer();
  weight.location.strides = *strides;
  const auto elements = extent(weight.location, weight.dims);
  if (!elements) return damaged("the description of a weight is damaged");
  if (*elements == 0) return weight;  // nothing is stored for an empty tensor
  COX_TRY(weight.location.file_offset, archive_.data_offset(weight.location.entry));
  const std::int64_t stored = archive_.entries().at(weight.location.entry).size;
  const std::int64_t needed = *elements * size_of(weight.dtype).value;
  if (stored < needed) {
    Error error = damaged("the weight's entry is shorter than the weight");
    error.expected = std::to_string(needed) + " bytes in " + weight.location.entry;
    error.got = std::to_string(stored) + " bytes";
    return error;
  }
  return weight;
}

void Pt2Reader::find_batch_symbol(const Json& graph, const Json& specs) {
  for (const Json& spec : specs.array()) {
    const auto [kind, body] = union_member(spec);
    if (kind != "user_input") continue;
    const Json& sizes = graph["tensor_values"][text_or_empty((*body)["arg"]["as_tensor"]["name"])]["sizes"];
    if (!sizes.is_array()) continue;
    for (const Json& size : sizes.array()) {
      const auto dim = parse_dim(text_or_empty(size["as_expr"]["expr_str"]));
      if (!dim || dim->symbols().size() != 1 || dim->to_text() != dim->symbols().front()) continue;
      batch_name_ = dim->symbols().front();
      return;
    }
  }
  graph_.batch_symbol.clear();
}

void Pt2Reader::read_inputs(const Json& specs, Scope& scope) {
  for (const Json& spec : specs.array()) {
    const auto [kind, body] = union_member(spec);
    if (kind == "constant_input") continue;  // None, numbers and strings are baked in
    if (kind != "parameter" && kind != "buffer" && kind != "tensor_constant" && kind != "user_input") {
      problems_.add({ErrorCode::Unimplemented, "an input of kind '" + kind + "'", "inputs", "tensors", "", ""});
      continue;
    }
    const Json& argument = (*body)["arg"];
    const std::string name = text_or_empty(kind == "user_input" ? argument["as_tensor"]["name"] : argument["name"]);
    if (name.empty()) {
      problems_.add({ErrorCode::Unimplemented, "an input that is no tensor", "inputs", "tensors",
                     union_member(argument).first, ""});
    } else if (kind == "user_input") {
      read_user_input(name, scope);
    } else {
      read_weight_input(kind, *body, name, scope);
    }
  }
}

void Pt2Reader::read_weight_input(const std::string& kind, const Json& spec, const std::string& value_name,
                                  Scope& scope) {
  const std::string name = name_in_spec(kind, spec);
  const auto found = weights_.find(name);
  if (found == weights_.end()) {
    problems_.add({ErrorCode::DataLoss, "the archive holds no content for '" + name + "'", name, "", "",
                   "export the model again"});
    return;
  }
  const Weight& weight = found->second;
  const std::string key = storage_key(weight.location, weight.dims);
  if (kind == "parameter") {
    if (const auto tied = parameter_of_storage_.find(key); tied != parameter_of_storage_.end()) {
      Parameter& owner = graph_.parameters[tied->second.first];
      owner.tied_names.push_back(name);
      owner.trainable = owner.trainable || weight.trainable;
      scope.tensors.emplace(value_name, tied->second.second);
      return;
    }
  }
  const auto value = make_value(value_name, scope);
  if (!value) return;
  const TensorId tensor = tensors_.add_root(*value, true);
  scope.tensors.emplace(value_name, tensor);
  if (kind != "parameter") {
    graph_.buffers.push_back({name, *value, weight.dims, weight.dtype, weight.location, std::nullopt});
    return;
  }
  Parameter parameter;
  parameter.name = name;
  parameter.value = *value;
  parameter.dims = weight.dims;
  parameter.dtype = weight.dtype;
  parameter.trainable = weight.trainable;
  parameter.weights = weight.location;
  parameter_of_storage_.emplace(key, std::make_pair(graph_.parameters.size(), tensor));
  graph_.parameters.push_back(std::move(parameter));
}

void Pt2Reader::read_user_input(const std::string& value_name, Scope& scope) {
  const auto value = make_value(value_name, scope);
  if (!value) return;
  scope.tensors.emplace(value_name, tensors_.add_root(*value, true));
  Input input{value_name, *value, 0};
  const auto& dims = graph_.values[*value].dims;
  if (!graph_.batch_symbol.empty()) {
    const auto batch = std::find(dims.begin(), dims.end(), Dim::symbol(graph_.batch_symbol));
    if (batch == dims.end()) {
      problems_.add({ErrorCode::InvalidArgument, "input '" + value_name + "' has no batch dim", "inputs." + value_name,
                     "the samples on one dim, as in the other inputs", "",
                     "export with the samples on dim 0 of every input"});
      return;
    }
    input.sample_dim = static_cast<int>(batch - dims.begin());
  } else if (dims.empty()) {
    problems_.add({ErrorCode::InvalidArgument, "input '" + value_name + "' is a scalar", "inputs." + value_name,
                   "the samples on dim 0", "", ""});
    return;
  } else if (const std::int64_t batch = dims.front().constant(); graph_.inputs.empty()) {
    graph_.static_batch = batch;
  } else if (batch != graph_.static_batch) {
    problems_.add({ErrorCode::InvalidArgument, "inputs disagree on the number of samples", "inputs." + value_name,
                   std::to_string(graph_.static_batch) + " on dim 0", std::to_string(batch), ""});
  }
  graph_.inputs.push_back(std::move(input));
}

}  // namespace coxswain::model
