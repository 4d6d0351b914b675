#include "model/build_parts.h"

#include <algorithm>
#include <utility>

#include "model/finish.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;  // of one number in a configuration
constexpr std::int64_t kToEnd = 9223372036854775807;      // how PyTorch writes an open slice
constexpr std::int64_t kIgnoredLabel = -100;
constexpr std::int64_t kMeanReduction = 1;

std::string shown(const Json& json) { return to_text(json); }

}  // namespace

void ConfigReader::problem(ErrorCode code, std::string message, const std::string& key, std::string expected,
                           std::string got) {
  problems_.push_back({code, std::move(message), key, std::move(expected), std::move(got), ""});
}

bool ConfigReader::has(const std::string& key) const {
  return config_.is_object() && config_.object().find(key) != config_.object().end();
}

std::optional<std::int64_t> ConfigReader::optional_size(const std::string& key) {
  const Json& value = config_[key];
  if (value.is_null()) return std::nullopt;
  if (value.is_integer() && value.integer() >= 1 && value.integer() <= kMaxSize) return value.integer();
  problem(ErrorCode::InvalidArgument, "bad size in the model configuration", key, "an integer of at least 1",
          shown(value));
  return std::nullopt;
}

std::int64_t ConfigReader::size(const std::string& key, std::int64_t otherwise) {
  return optional_size(key).value_or(otherwise);
}

double ConfigReader::number(const std::string& key, double otherwise) {
  const Json& value = config_[key];
  if (value.is_null()) return otherwise;
  if (value.is_number()) return value.number();
  problem(ErrorCode::InvalidArgument, "bad number in the model configuration", key, "a number", shown(value));
  return otherwise;
}

double ConfigReader::probability(const std::string& key, double otherwise) {
  const double value = number(key, otherwise);
  if (value >= 0 && value < 1) return value;
  problem(ErrorCode::InvalidArgument, "bad probability in the model configuration", key, "at least 0 and below 1",
          shown(config_[key]));
  return otherwise;
}

bool ConfigReader::flag(const std::string& key, bool otherwise) {
  const Json& value = config_[key];
  if (value.is_null()) return otherwise;
  if (value.is_bool()) return value.boolean();
  problem(ErrorCode::InvalidArgument, "bad flag in the model configuration", key, "true or false", shown(value));
  return otherwise;
}

std::string ConfigReader::text(const std::string& key, const std::string& otherwise) {
  const Json& value = config_[key];
  if (value.is_null()) return otherwise;
  if (value.is_string()) return value.string();
  problem(ErrorCode::InvalidArgument, "bad text in the model configuration", key, "a string", shown(value));
  return otherwise;
}

void ConfigReader::require_flag(const std::string& key, bool expected, bool otherwise) {
  if (flag(key, otherwise) == expected) return;
  problem(ErrorCode::Unimplemented, "a model option that this version cannot build; export the model instead", key,
          expected ? "true" : "false", expected ? "false" : "true");
}

void ConfigReader::divides(const std::string& divisor_key, std::int64_t divisor, const std::string& key,
                           std::int64_t value) {
  if (value % divisor == 0) return;
  problem(ErrorCode::InvalidArgument, key + " is no multiple of " + divisor_key, divisor_key,
          "a divisor of " + std::to_string(value), std::to_string(divisor));
}

Result<void> ConfigReader::finish() {
  if (problems_.empty()) return {};
  return combine_errors(ErrorCode::InvalidArgument, "the model configuration cannot be built", std::move(problems_));
}

GraphBuilder::GraphBuilder(std::string name, std::int64_t length, double initializer_range)
    : batch_(Dim::symbol("batch")), length_(length) {
  graph_.name = std::move(name);
  graph_.initializer_range = initializer_range;
}

std::string GraphBuilder::next_name() { return "value_" + std::to_string(graph_.values.size()); }

ValueId GraphBuilder::parameter(const std::string& name, std::vector<std::int64_t> dims, const std::string& init,
                                std::vector<std::string> tied_names) {
  const ValueId value = add_value(graph_, name, std::vector<Dim>(dims.begin(), dims.end()), DType::Float32);
  Parameter made;
  made.name = name;
  made.value = value;
  made.dims = std::move(dims);
  made.init = init;
  made.tied_names = std::move(tied_names);
  graph_.parameters.push_back(std::move(made));
  return value;
}

ValueId GraphBuilder::buffer(const std::string& name, std::vector<double> content, std::vector<std::int64_t> dims,
                             DType dtype) {
  const ValueId value = add_value(graph_, name, std::vector<Dim>(dims.begin(), dims.end()), dtype);
  Buffer made;
  made.name = name;
  made.value = value;
  made.dims = std::move(dims);
  made.dtype = dtype;
  made.content = std::move(content);
  graph_.buffers.push_back(std::move(made));
  return value;
}

ValueId GraphBuilder::input(const std::string& name) { return input(name, {batch_, Dim(length_)}, DType::Int64); }

ValueId GraphBuilder::input(const std::string& name, std::vector<Dim> dims, DType dtype) {
  const ValueId value = add_value(graph_, name, std::move(dims), dtype);
  graph_.inputs.push_back({name, value, 0});
  return value;
}

ValueId GraphBuilder::emit(std::string_view target, NamedArguments given, std::vector<Dim> dims, DType dtype) {
  return emit_op(graph_, target, given, origin_, next_name(), std::move(dims), dtype);
}

ValueId GraphBuilder::emit_like(std::string_view target, NamedArguments given, ValueId like) {
  return emit(target, given, graph_.values[like].dims, graph_.values[like].dtype);
}

std::vector<ValueId> GraphBuilder::emit_several(std::string_view target, NamedArguments given,
                                                const std::vector<std::pair<std::vector<Dim>, DType>>& outputs) {
  Op op = make_op(target, given, origin_);
  for (const auto& [dims, dtype] : outputs) op.outputs.push_back(add_value(graph_, next_name(), dims, dtype));
  std::vector<ValueId> made = op.outputs;
  graph_.ops.push_back(std::move(op));
  return made;
}

ValueId GraphBuilder::dropout(ValueId x, double probability) {
  if (probability == 0) return x;
  return emit_like("aten::dropout", {{"input", ValueRef{x}}, {"p", probability}, {"train", true}}, x);
}

ValueId GraphBuilder::view(ValueId x, std::vector<Dim> dims) {
  const DType dtype = graph_.values[x].dtype;
  return emit("aten::view", {{"self", ValueRef{x}}, {"size", dims}}, dims, dtype);
}

ValueId GraphBuilder::reshape(ValueId x, std::vector<Dim> dims) {
  const DType dtype = graph_.values[x].dtype;
  return emit("aten::reshape", {{"self", ValueRef{x}}, {"shape", dims}}, dims, dtype);
}

ValueId GraphBuilder::expand(ValueId x, std::vector<Dim> dims) {
  const DType dtype = graph_.values[x].dtype;
  return emit("aten::expand", {{"self", ValueRef{x}}, {"size", dims}}, dims, dtype);
}

ValueId GraphBuilder::transpose(ValueId x, int a, int b) {
  std::vector<Dim> swapped = dims(x);
  std::swap(swapped[static_cast<std::size_t>(a)], swapped[static_cast<std::size_t>(b)]);
  return emit("aten::transpose.int", {{"self", ValueRef{x}}, {"dim0", Dim(a)}, {"dim1", Dim(b)}}, std::move(swapped),
              graph_.values[x].dtype);
}

ValueId GraphBuilder::unsqueeze(ValueId x, int dim) {
  std::vector<Dim> wider = dims(x);
  wider.insert(wider.begin() + dim, Dim(1));
  return emit("aten::unsqueeze", {{"self", ValueRef{x}}, {"dim", Dim(dim)}}, std::move(wider), graph_.values[x].dtype);
}

ValueId GraphBuilder::squeeze(ValueId x, int dim) {
  std::vector<Dim> narrower = dims(x);
  narrower.erase(narrower.begin() + dim);
  return emit("aten::squeeze.dim", {{"self", ValueRef{x}}, {"dim", Dim(dim)}}, std::move(narrower),
              graph_.values[x].dtype);
}

ValueId GraphBuilder::select(ValueId x, int dim, std::int64_t index) {
  std::vector<Dim> narrower = dims(x);
  narrower.erase(narrower.begin() + dim);
  return emit("aten::select.int", {{"self", ValueRef{x}}, {"dim", Dim(dim)}, {"index", Dim(index)}},
              std::move(narrower), graph_.values[x].dtype);
}

ValueId GraphBuilder::concatenate(const std::vector<ValueId>& parts, int dim) {
  std::vector<Dim> whole = dims(parts.front());
  const auto place = static_cast<std::size_t>(dim < 0 ? dim + static_cast<int>(whole.size()) : dim);
  whole[place] = Dim(0);
  std::vector<std::optional<ValueRef>> list;
  for (const ValueId part : parts) {
    whole[place] = whole[place] + dims(part)[place];
    list.emplace_back(ValueRef{part});
  }
  return emit("aten::cat", {{"tensors", list}, {"dim", Dim(dim)}}, std::move(whole),
              graph_.values[parts.front()].dtype);
}

ValueId GraphBuilder::convert(ValueId x, DType dtype) {
  return emit("aten::to.dtype", {{"self", ValueRef{x}}, {"dtype", dtype}}, dims(x), dtype);
}

ValueId GraphBuilder::slice(ValueId x, int dim, std::int64_t start, std::int64_t end) {
  std::vector<Dim> shorter = dims(x);
  Dim& sliced = shorter[static_cast<std::size_t>(dim)];
  const bool to_end = sliced == Dim(end);
  sliced = Dim(end - start);
  return emit("aten::slice.Tensor",
              {{"self", ValueRef{x}},
               {"dim", Dim(dim)},
               {"start", Dim(start)},
               {"end", Dim(to_end && start > 0 ? kToEnd : end)},
               {"step", Dim(1)}},
              std::move(shorter), graph_.values[x].dtype);
}

ValueId GraphBuilder::embedding(ValueId weight, ValueId indices, std::int64_t padding) {
  std::vector<Dim> found = dims(indices);
  found.push_back(dims(weight)[1]);
  return emit("aten::embedding",
              {{"weight", ValueRef{weight}}, {"indices", ValueRef{indices}}, {"padding_idx", Dim(padding)}},
              std::move(found));
}

ValueId GraphBuilder::linear(ValueId x, ValueId weight, ValueId bias) {
  std::vector<Dim> out = dims(x);
  out.back() = dims(weight)[0];
  const Argument::Variant bias_argument = bias < 0 ? Argument::Variant(None{}) : Argument::Variant(ValueRef{bias});
  return emit("aten::linear", {{"input", ValueRef{x}}, {"weight", ValueRef{weight}}, {"bias", bias_argument}},
              std::move(out));
}

ValueId GraphBuilder::rows_linear(ValueId x, ValueId weight, ValueId bias) {
  std::vector<Dim> out = dims(x);
  const Dim rows = Dim(length_) * batch_;
  const ValueId flat = view(x, {rows, out.back()});
  out.back() = dims(weight)[1];
  const ValueId product =
      emit("aten::addmm", {{"self", ValueRef{bias}}, {"mat1", ValueRef{flat}}, {"mat2", ValueRef{weight}}},
           {rows, out.back()});
  return view(product, std::move(out));
}

ValueId GraphBuilder::layer_norm(ValueId x, ValueId weight, ValueId bias, double epsilon) {
  return emit_like("aten::layer_norm",
                   {{"input", ValueRef{x}},
                    {"normalized_shape", std::vector<Dim>{dims(x).back()}},
                    {"weight", ValueRef{weight}},
                    {"bias", ValueRef{bias}},
                    {"eps", epsilon},
                    {"cudnn_enable", false}},
                   x);
}

ValueId GraphBuilder::attention(ValueId query, ValueId key, ValueId value, const AttentionOptions& options) {
  std::vector<Dim> out = dims(query);
  out.back() = dims(value).back();
  const Argument::Variant scale = options.scale ? Argument::Variant(*options.scale) : Argument::Variant(None{});
  const Argument::Variant mask =
      options.mask < 0 ? Argument::Variant(None{}) : Argument::Variant(ValueRef{options.mask});
  return emit("aten::scaled_dot_product_attention",
              {{"query", ValueRef{query}},
               {"key", ValueRef{key}},
               {"value", ValueRef{value}},
               {"attn_mask", mask},
               {"dropout_p", options.dropout},
               {"is_causal", options.causal && options.mask < 0 && length_ > 1},
               {"scale", scale},
               {"enable_gqa", options.grouped}},
              std::move(out));
}

const std::vector<std::string>& known_activations() {
  static const std::vector<std::string> names{"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"};
  return names;
}

ValueId GraphBuilder::activation(const std::string& name, ValueId x) {
  if (name == "relu") return emit_like("aten::relu", {{"self", ValueRef{x}}}, x);
  if (name == "silu" || name == "swish") return emit_like("aten::silu", {{"self", ValueRef{x}}}, x);
  if (name == "gelu") return emit_like("aten::gelu", {{"self", ValueRef{x}}}, x);
  if (name == "gelu_pytorch_tanh")
    return emit_like("aten::gelu", {{"self", ValueRef{x}}, {"approximate", std::string("tanh")}}, x);
  // gelu_new: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), operator by operator as transformers writes it.
  constexpr double kCubic = 0.044715, kSqrtTwoOverPi = 0.7978845608028654;
  const ValueId half = multiply(x, 0.5);
  const ValueId cube =
      multiply(emit_like("aten::pow.Tensor_Scalar", {{"self", ValueRef{x}}, {"exponent", 3.0}}, x), kCubic);
  const ValueId inner = multiply(add(x, cube, x), kSqrtTwoOverPi);
  const ValueId curve = add(emit_like("aten::tanh", {{"self", ValueRef{inner}}}, inner), 1.0);
  return multiply(half, curve, x);
}

std::vector<ValueId> GraphBuilder::split(ValueId x, std::int64_t size) {
  const auto last = static_cast<std::int64_t>(dims(x).size()) - 1;
  const auto pieces = static_cast<std::size_t>(dims(x).back().constant() / size);
  std::vector<Dim> piece = dims(x);
  piece.back() = Dim(size);
  return emit_several("aten::split.Tensor", {{"self", ValueRef{x}}, {"split_size", Dim(size)}, {"dim", Dim(last)}},
                      std::vector<std::pair<std::vector<Dim>, DType>>(pieces, {piece, graph_.values[x].dtype}));
}

ValueId GraphBuilder::positions() {
  const ValueId row =
      emit("aten::arange.start", {{"start", Dim(0)}, {"end", Dim(length_)}}, {Dim(length_)}, DType::Int64);
  return unsqueeze(row, 0);
}

ValueId GraphBuilder::cross_entropy(ValueId logits, ValueId labels) {
  return emit("aten::cross_entropy_loss",
              {{"self", ValueRef{logits}},
               {"target", ValueRef{labels}},
               {"reduction", Dim(kMeanReduction)},
               {"ignore_index", Dim(kIgnoredLabel)}},
              {});
}

ValueId GraphBuilder::next_token_loss(ValueId logits, ValueId labels) {
  // Token i predicts token i + 1: labels move left, the last becomes the ignored one.
  const std::vector<Dim> padding{Dim(0), Dim(1)};
  const ValueId padded = emit("aten::pad",
                              {{"self", ValueRef{labels}},
                               {"pad", padding},
                               {"mode", std::string("constant")},
                               {"value", static_cast<double>(kIgnoredLabel)}},
                              {batch_, Dim(length_ + 1)}, DType::Int64);
  const ValueId moved = slice(padded, 1, 1, length_ + 1);
  const ValueId dense = emit_like("aten::contiguous", {{"self", ValueRef{moved}}}, moved);
  const ValueId flat_logits = view(logits, {rows(), dims(logits).back()});
  return cross_entropy(flat_logits, view(dense, {rows()}));
}

Result<ModelGraph> GraphBuilder::finish(ValueId loss) {
  const auto coupled_losses = split_loss(graph_, loss);
  COX_TRY_VOID(finish_graph(graph_));
  add_coupled_losses(graph_, coupled_losses);
  return std::move(graph_);
}

std::string read_activation(ConfigReader& config, const std::string& key, const std::string& otherwise) {
  const std::string name = config.text(key, otherwise);
  const auto& known = known_activations();
  if (std::find(known.begin(), known.end(), name) != known.end()) return name;
  std::string all;
  for (const std::string& one : known) all += (all.empty() ? "" : ", ") + one;
  config.problem(ErrorCode::Unimplemented, "unknown activation function", key, "one of " + all, name);
  return otherwise;
}

std::int64_t read_length(ConfigReader& config, const std::string& maximum_key, std::int64_t maximum,
                         std::int64_t requested) {
  if (requested == 0) return maximum;
  if (requested < 0 || requested > maximum)
    config.problem(ErrorCode::InvalidArgument, "the sequence length does not fit the model", "sequence_length",
                   "1 to " + std::to_string(maximum) + " (" + maximum_key + ")", std::to_string(requested));
  return requested;
}

}  // namespace coxswain::model
