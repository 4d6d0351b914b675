#include "model/pt2_reader.h"

#include <algorithm>
#include <array>

#include "model/op_values.h"

namespace coxswain::model {
namespace {

constexpr std::size_t kMaxProblems = 50;
constexpr int kMaxNesting = 20;

// Checks and hints that compute nothing.
constexpr std::array<std::string_view, 9> kDropped = {"aten::_assert_tensor_metadata",
                                                      "aten::_assert_scalar",
                                                      "aten::_assert_async",
                                                      "aten::sym_constrain_range",
                                                      "aten::sym_constrain_range_for_size",
                                                      "aten::_functional_assert_async",
                                                      "aten::_print",
                                                      "aten::is_same_size",
                                                      "aten::_guard"};

// Views whose output shares memory with the first argument for certain.
constexpr std::array<std::string_view, 24> kViews = {
    "aten::view",      "aten::transpose",        "aten::permute", "aten::t",           "aten::unsqueeze",
    "aten::squeeze",   "aten::expand",           "aten::slice",   "aten::select",      "aten::alias",
    "aten::split",     "aten::split_with_sizes", "aten::chunk",   "aten::unbind",      "aten::narrow",
    "aten::unflatten", "aten::detach",           "aten::view_as", "aten::expand_as",   "aten::diagonal",
    "aten::unfold",    "aten::as_strided",       "aten::movedim", "aten::broadcast_to"};
// Views of a contiguous tensor, copies of some others.
constexpr std::array<std::string_view, 4> kMaybeViews = {"aten::reshape", "aten::flatten", "aten::contiguous",
                                                         "aten::reshape_as"};

// Operators that draw random numbers other than dropout's: their result would depend on the plan.
constexpr std::array<std::string_view, 13> kRandom = {
    "aten::rand",          "aten::randn",           "aten::randint",   "aten::rand_like", "aten::randn_like",
    "aten::randint_like",  "aten::randperm",        "aten::bernoulli", "aten::normal",    "aten::multinomial",
    "aten::alpha_dropout", "aten::feature_dropout", "aten::poisson"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Tensor results by position; "" for one that is no tensor.
std::vector<std::string> output_names(const Json& node) {
  std::vector<std::string> names;
  for (const Json& output : array_or_empty(node["outputs"])) {
    const auto [kind, body] = union_member(output);
    if (kind == "as_tensors") {
      for (const Json& element : array_or_empty(*body)) names.push_back(text_or_empty(element["name"]));
    } else {
      names.push_back(text_or_empty((kind == "as_optional_tensor" ? (*body)["as_tensor"] : *body)["name"]));
    }
  }
  return names;
}

// "torch.ops.aten.add.Tensor" -> "aten::add.Tensor"; "torch.ops.aten.linear.default" -> "aten::linear".
std::string target_name(std::string_view text) {
  constexpr std::string_view kPrefix = "torch.ops.";
  if (!text.starts_with(kPrefix)) return std::string(text);
  text.remove_prefix(kPrefix.size());
  if (text.ends_with(".default")) text.remove_suffix(std::string_view(".default").size());
  const std::size_t dot = text.find('.');
  if (dot == std::string_view::npos) return std::string(text);
  return std::string(text.substr(0, dot)) + "::" + std::string(text.substr(dot + 1));
}

// Splits at `separator` outside parentheses: a module path may hold "slice(None, 2, None)".
std::vector<std::string> split_outside(std::string_view text, char separator) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    if (c == separator && depth <= 0) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// "L__self__,,M;L__self__layers,layers.slice(None, 2, None).0,Layer" -> "layers.0".
std::string module_path_of(const std::string& stack) {
  if (stack.empty()) return "";
  const auto fields = split_outside(split_outside(stack, ';').back(), ',');
  if (fields.size() < 2) return "";
  std::string path;
  for (const std::string& part : split_outside(fields[1], '.')) {
    if (part.starts_with("slice(")) continue;
    path += (path.empty() ? "" : ".") + part;
  }
  return path;
}

// The innermost frame outside PyTorch, as "file.py:12".
std::string source_of(std::string_view trace) {
  std::string inside, outside;
  constexpr std::string_view kFile = "File \"", kLine = "\", line ";
  for (std::size_t at = trace.find(kFile); at != std::string_view::npos; at = trace.find(kFile, at)) {
    at += kFile.size();
    const std::size_t end = trace.find(kLine, at);
    if (end == std::string_view::npos) break;
    const std::string_view path = trace.substr(at, end - at);
    const std::size_t number = end + kLine.size();
    std::size_t number_end = number;
    while (number_end < trace.size() && trace[number_end] >= '0' && trace[number_end] <= '9') ++number_end;
    const std::string text =
        std::string(path.substr(path.rfind('/') + 1)) + ":" + std::string(trace.substr(number, number_end - number));
    (path.find("/torch/") == std::string_view::npos ? outside : inside) = text;
    at = number_end;
  }
  return outside.empty() ? inside : outside;
}

bool is_contiguous(const Json& meta) {
  const Json &sizes = meta["sizes"], &strides = meta["strides"];
  if (!sizes.is_array() || !strides.is_array() || sizes.array().size() != strides.array().size()) return false;
  Dim expected(1);
  for (std::size_t i = sizes.array().size(); i-- > 0;) {
    const auto number = [](const Json& json) {
      return json["as_int"].is_integer() ? Result<Dim>(Dim(json["as_int"].integer()))
                                         : parse_dim(text_or_empty(json["as_expr"]["expr_str"]));
    };
    const auto size = number(sizes.array()[i]), stride = number(strides.array()[i]);
    if (!size || !stride) return false;
    if (*size == Dim(1)) continue;
    if (!(*stride == expected)) return false;
    expected = expected * *size;
  }
  return true;
}

}  // namespace

const JsonArray& array_or_empty(const Json& json) {
  static const JsonArray kEmpty;
  return json.is_array() ? json.array() : kEmpty;
}

std::string text_or_empty(const Json& json) { return json.is_string() ? json.string() : std::string(); }

std::pair<std::string, const Json*> union_member(const Json& json) {
  static const Json kNull;
  if (!json.is_object() || json.object().size() != 1) return {"", &kNull};
  return {json.object().begin()->first, &json.object().begin()->second};
}

std::optional<DType> dtype_of_code(std::int64_t code) {
  switch (code) {
    case 1: return DType::UInt8;
    case 2: return DType::Int8;
    case 3: return DType::Int16;
    case 4: return DType::Int32;
    case 5: return DType::Int64;
    case 6: return DType::Float16;
    case 7: return DType::Float32;
    case 8: return DType::Float64;
    case 12: return DType::Bool;
    case 13: return DType::BFloat16;
    default: return std::nullopt;
  }
}

void ProblemList::add(Error error) {
  const std::string key = error.message + "|" + error.got;
  if (const auto found = place_.find(key); found != place_.end()) {
    ++counts_[found->second];
    return;
  }
  if (problems_.size() == kMaxProblems) return;
  place_.emplace(key, problems_.size());
  problems_.push_back(std::move(error));
  counts_.push_back(1);
}

std::vector<Error> ProblemList::take() {
  for (std::size_t i = 0; i < problems_.size(); ++i) {
    if (counts_[i] > 1) problems_[i].path += " (and " + std::to_string(counts_[i] - 1) + " more)";
  }
  return std::move(problems_);
}

void Pt2Reader::problem(ErrorCode code, std::string message, const Json& node, std::string hint) {
  if (code == ErrorCode::Cancelled) return;  // only follows from another problem
  const Origin origin{module_path_of(text_or_empty(node["metadata"]["nn_module_stack"])),
                      source_of(text_or_empty(node["metadata"]["stack_trace"])), true};
  std::string place = origin.module_path.empty() ? "model" : origin.module_path;
  if (!origin.source.empty()) place += "  (" + origin.source + ")";
  problems_.add({code, std::move(message), std::move(place), "", "", std::move(hint)});
}

Origin Pt2Reader::origin_of(const Json& node, const Scope& scope) const {
  return {module_path_of(text_or_empty(node["metadata"]["nn_module_stack"])),
          source_of(text_or_empty(node["metadata"]["stack_trace"])), scope.grad_enabled};
}

Result<RawModel> Pt2Reader::read(const Json& document) {
  COX_TRY_VOID(read_weights("weights", name_ + "_weights_config.json"));
  COX_TRY_VOID(read_weights("constants", name_ + "_constants_config.json"));
  const Json& graph = document["graph_module"]["graph"];
  const Json& signature = document["graph_module"]["signature"];
  if (!graph.is_object() || !graph["nodes"].is_array() || !signature["input_specs"].is_array() ||
      !signature["output_specs"].is_array()) {
    return Error{ErrorCode::DataLoss,     "the model's graph is damaged", archive_.path().string(), "", "",
                 "export the model again"};
  }
  graph_.name = archive_.path().stem().string();
  graph_.source_file = archive_.path().string();
  find_batch_symbol(graph, signature["input_specs"]);

  Scope scope{graph, true, {}, {}, {}};
  read_inputs(signature["input_specs"], scope);
  read_graph(scope);

  std::vector<ValueId> losses;
  std::vector<std::pair<ValueId, std::string>> coupled_losses;
  for (const Json& spec : signature["output_specs"].array()) {
    const auto [kind, body] = union_member(spec);
    const Json& argument = (*body)["arg"];
    const std::string name = text_or_empty(kind == "loss_output" ? argument["name"] : argument["as_tensor"]["name"]);
    const auto found = scope.tensors.find(name);
    if ((kind == "user_output" || kind == "loss_output") && found != scope.tensors.end()) {
      losses.push_back(tensors_.read(found->second));
    } else {
      problems_.add(
          {ErrorCode::Unimplemented, "an output of kind '" + kind + "'", "outputs", "the loss alone", name, ""});
    }
  }
  const auto is_scalar_loss = [&](ValueId value) {
    return graph_.values[value].dims.empty() && is_floating_point(graph_.values[value].dtype);
  };
  if (losses.size() == 1 && is_scalar_loss(losses.front())) {
    coupled_losses = split_loss(graph_, losses.front());
    check_written_buffers();
  } else if (problems_.empty()) {
    problems_.add({ErrorCode::InvalidArgument, "the model must return its loss alone", "outputs",
                   "one floating-point scalar", std::to_string(losses.size()) + " outputs",
                   "compute the loss inside forward and export with coxswain.export"});
  }
  if (!problems_.empty()) {
    return combine_errors(ErrorCode::InvalidArgument,
                          "the model holds what this version cannot run: " + archive_.path().string(),
                          problems_.take());
  }
  make_names_unique();
  return RawModel{std::move(graph_), std::move(coupled_losses)};
}

// Nested graphs name their values on their own.
void Pt2Reader::make_names_unique() {
  std::map<std::string, int> counts;
  for (Value& value : graph_.values) {
    std::string name = value.name;
    for (int& count = counts[value.name]; count > 0 && counts.contains(name);)
      name = value.name + "_" + std::to_string(++count);
    ++counts[name];
    value.name = std::move(name);
  }
}

void Pt2Reader::read_sizes(Scope& scope) {
  const Json& sizes = scope.graph["sym_int_values"];
  if (sizes.is_object()) {
    for (const auto& [name, size] : sizes.object()) {
      if (const auto dim = read_size(size)) scope.sizes.emplace(name, *dim);
    }
  }
  // Numbers of rows, as a mean over them divides by. What is no whole number is a problem where it is used.
  const Json& numbers = scope.graph["sym_float_values"];
  if (!numbers.is_object()) return;
  for (const auto& [name, number] : numbers.object()) {
    if (!parse_dim(text_or_empty(number["as_expr"]["expr_str"]))) continue;
    if (const auto dim = read_size(number)) scope.sizes.emplace(name, *dim);
  }
}

std::optional<Dim> Pt2Reader::read_size(const Json& size) {
  if (size["as_int"].is_integer()) return Dim(size["as_int"].integer());
  const std::string text = text_or_empty(size["as_expr"]["expr_str"]);
  auto dim = parse_dim(text);
  if (!dim) {
    problems_.add(
        {ErrorCode::Unimplemented, "a size that is no integer expression", "sizes", "", text.substr(0, 200), ""});
    return std::nullopt;
  }
  const Dim renamed = batch_name_.empty() ? *dim : dim->substitute(batch_name_, Dim::symbol(graph_.batch_symbol));
  for (const std::string& symbol : renamed.symbols()) {
    if (symbol == graph_.batch_symbol) continue;
    problems_.add({ErrorCode::Unimplemented, "a size that is known only at run time", "sizes",
                   "the batch alone may vary", symbol,
                   "export with a fixed sequence length, and without operators whose output size depends on data"});
    return std::nullopt;
  }
  return renamed;
}

std::optional<ValueId> Pt2Reader::make_value(const std::string& name, const Scope& scope) {
  const Json& meta = scope.graph["tensor_values"][name];
  if (!meta.is_object() || !meta["sizes"].is_array() || !meta["dtype"].is_integer()) {
    problems_.add({ErrorCode::DataLoss, "the archive does not describe value '" + name + "'", "values", "", "",
                   "export the model again"});
    return std::nullopt;
  }
  const auto dtype = dtype_of_code(meta["dtype"].integer());
  if (!dtype) {
    problems_.add({ErrorCode::Unimplemented, "a tensor with an element type that this version cannot run",
                   "values." + name, "bool, uint8, int8 to int64, float16, bfloat16, float32, float64",
                   "type " + std::to_string(meta["dtype"].integer()), ""});
    return std::nullopt;
  }
  std::vector<Dim> dims;
  for (const Json& size : meta["sizes"].array()) {
    const auto dim = read_size(size);
    if (!dim) return std::nullopt;
    dims.push_back(*dim);
  }
  return add_value(graph_, name, std::move(dims), *dtype);
}

void Pt2Reader::read_graph(Scope& scope) {
  read_sizes(scope);
  const Json& nodes = scope.graph["nodes"];
  if (!nodes.is_array()) return;
  for (const Json& node : nodes.array()) {
    read_node(node, scope);
    if (!problems_.empty()) stand_in_for_lost(node, scope);
  }
}

// After a problem the walk goes on, to find all of them: lost results are replaced by values without a producer.
void Pt2Reader::stand_in_for_lost(const Json& node, Scope& scope) {
  for (const std::string& name : output_names(node)) {
    const Json& meta = scope.graph["tensor_values"][name];
    if (name.empty() || scope.tensors.contains(name) || !meta["dtype"].is_integer()) continue;
    const auto value = dtype_of_code(meta["dtype"].integer()) ? make_value(name, scope) : std::nullopt;
    if (value) {
      scope.tensors.emplace(name, tensors_.add_root(*value));
    } else {
      scope.lost.insert(name);
    }
  }
}

void Pt2Reader::read_node(const Json& node, Scope& scope) {
  const std::string target = target_name(text_or_empty(node["target"]));
  const std::string name(base_name(target));
  const JsonArray& outputs = array_or_empty(node["outputs"]);
  const bool gives_sizes_alone =
      !outputs.empty() && std::all_of(outputs.begin(), outputs.end(), [](const Json& output) {
        return union_member(output).first.starts_with("as_sym_");
      });
  if (name == "aten::item" || name == "aten::_local_scalar_dense") {
    return problem(ErrorCode::Unimplemented, "operator " + target + " reads a tensor's content", node,
                   "keep the value in a tensor");
  }
  // The archive holds every size as an expression already.
  if (gives_sizes_alone || is_one_of(name, kDropped)) return;
  if (target == "higher_order::wrap_with_set_grad_enabled" || target == "higher_order::wrap_with_autocast") {
    return read_nested(node, target, scope);
  }
  if (is_one_of(name, kRandom)) {
    return problem(ErrorCode::Unimplemented, "operator " + target + " draws random numbers; only dropout may", node,
                   "give the numbers as an input");
  }
  if (drop_identity(node, target, scope)) return;
  if (name.ends_with('_') && !name.ends_with("__")) return read_in_place(node, target, scope);
  read_operator(node, target, scope);
}

std::optional<TensorId> Pt2Reader::first_tensor(const Json& node, const Scope& scope) const {
  const Json& inputs = node["inputs"];
  if (!inputs.is_array() || inputs.array().empty()) return std::nullopt;
  const auto found = scope.tensors.find(text_or_empty(inputs.array().front()["arg"]["as_tensor"]["name"]));
  if (found == scope.tensors.end()) return std::nullopt;
  return found->second;
}

// What gives its input back: the name is bound, no operator is kept.
bool Pt2Reader::drop_identity(const Json& node, const std::string& target, Scope& scope) {
  const std::string_view name = base_name(target);
  const Json& outputs = node["outputs"];
  const auto base = first_tensor(node, scope);
  if (!base || !outputs.is_array() || outputs.array().size() != 1) return false;
  const std::string output = text_or_empty(outputs.array().front()["as_tensor"]["name"]);
  const std::string input = text_or_empty(node["inputs"].array().front()["arg"]["as_tensor"]["name"]);
  if (output.empty()) return false;
  const Json &before = scope.graph["tensor_values"][input], &after = scope.graph["tensor_values"][output];
  static const Json kNull;
  const auto argument = [&](std::string_view key) -> const Json& {
    for (const Json& named : node["inputs"].array()) {
      if (text_or_empty(named["name"]) == key) return named["arg"];
    }
    return kNull;
  };
  const auto is_bool = [&](std::string_view key, bool value) {
    return argument(key)["as_bool"].is_bool() && argument(key)["as_bool"].boolean() == value;
  };
  const bool carries_gradient = before["requires_grad"].is_bool() && before["requires_grad"].boolean();
  const bool same = name == "aten::alias" || name == "aten::requires_grad_" ||
                    (name == "aten::detach_" && !carries_gradient) ||
                    (name == "aten::to" && before["dtype"].is_integer() && before["dtype"] == after["dtype"] &&
                     !is_bool("copy", true)) ||
                    (name == "aten::dropout" && (is_bool("train", false) || argument("p")["as_float"] == Json(0.0)));
  if (same) {
    scope.tensors.insert_or_assign(output, *base);
    return true;
  }
  if (name == "aten::lift_fresh_copy" || name == "aten::lift_fresh") {
    // A copy of a constant: later writes must not reach the constant.
    scope.tensors.insert_or_assign(output, tensors_.add_root(tensors_.read(*base)));
    return true;
  }
  return false;
}

void Pt2Reader::read_operator(const Json& node, const std::string& target, Scope& scope) {
  // Every spelling of `to` that changes the type means to.dtype; devices are the engine's business.
  const auto base = first_tensor(node, scope);
  if (base_name(target) == "aten::to" && base) {
    const Json& output =
        node["outputs"].is_array() && node["outputs"].array().size() == 1 ? node["outputs"].array().front() : Json();
    const auto value = make_value(text_or_empty(output["as_tensor"]["name"]), scope);
    if (!value) return;
    Op op =
        make_op("aten::to.dtype", {{"self", ValueRef{tensors_.read(*base)}}, {"dtype", graph_.values[*value].dtype}},
                origin_of(node, scope));
    op.outputs.push_back(*value);
    graph_.ops.push_back(std::move(op));
    scope.tensors.insert_or_assign(graph_.values[*value].name, tensors_.add_root(*value));
    return;
  }
  const auto op = read_op(node, target, scope);
  if (op) bind_outputs(node, *op, scope);
}

void Pt2Reader::bind_outputs(const Json& node, const Op& op, Scope& scope) {
  for (const Json& output : array_or_empty(node["outputs"])) {
    const std::string kind = union_member(output).first;
    if (kind != "as_tensor" && kind != "as_tensors" && kind != "as_optional_tensor" && kind != "as_none") {
      return problem(ErrorCode::Unimplemented, "operator " + op.target + " gives a result of kind '" + kind + "'",
                     node);
    }
  }
  const std::vector<std::string> names = output_names(node);
  Op placed = op;
  for (const std::string& name : names) {
    // Outputs nobody uses are named but not described.
    const bool used = !name.empty() && scope.graph["tensor_values"][name].is_object();
    const auto value = used ? make_value(name, scope) : std::optional<ValueId>(-1);
    if (!value) return;
    placed.outputs.push_back(*value);
  }
  const std::string_view name = base_name(op.target);
  const auto base = first_tensor(node, scope);
  const std::string base_text = base ? text_or_empty(node["inputs"].array().front()["arg"]["as_tensor"]["name"]) : "";
  const bool maybe = is_one_of(name, kMaybeViews);
  const bool views =
      base && (is_one_of(name, kViews) || (maybe && is_contiguous(scope.graph["tensor_values"][base_text])));
  for (std::size_t i = 0; i < names.size(); ++i) {
    const ValueId value = placed.outputs[i];
    if (value < 0) continue;
    const TensorId tensor = views           ? tensors_.add_view(*base, placed, i, value)
                            : base && maybe ? tensors_.add_unclear(*base, value)
                                            : tensors_.add_root(value);
    scope.tensors.insert_or_assign(names[i], tensor);
  }
  graph_.ops.push_back(std::move(placed));
}

void Pt2Reader::read_nested(const Json& node, const std::string& target, Scope& scope) {
  static thread_local int nesting = 0;
  const bool is_autocast = target == "higher_order::wrap_with_autocast";
  const JsonArray& inputs = array_or_empty(node["inputs"]);
  const auto graph = std::find_if(inputs.begin(), inputs.end(),
                                  [](const Json& input) { return input["arg"]["as_graph"].is_object(); });
  // Autocast: (device, dtype, enabled, cache, graph, ...); gradient mode: (enabled, graph, ...).
  const std::size_t flag = is_autocast ? 2 : 0;
  if (graph == inputs.end() || inputs.size() <= flag || !inputs[flag]["arg"]["as_bool"].is_bool() ||
      nesting >= kMaxNesting) {
    return problem(ErrorCode::DataLoss, "a nested graph is damaged", node, "export the model again");
  }
  const bool enabled = inputs[flag]["arg"]["as_bool"].boolean();
  if (is_autocast && enabled) {
    return problem(ErrorCode::Unimplemented, "an autocast region", node,
                   "export in float32 and set `precision: bfloat16` in the job");
  }
  const Json& inner_graph = (*graph)["arg"]["as_graph"]["graph"];
  Scope inner{inner_graph, is_autocast ? scope.grad_enabled : enabled, {}, {}, {}};
  const JsonArray& formal = array_or_empty(inner_graph["inputs"]);
  for (std::size_t i = 0; i < formal.size(); ++i) {
    const std::size_t place = static_cast<std::size_t>(graph - inputs.begin()) + 1 + i;
    if (place >= inputs.size())
      return problem(ErrorCode::DataLoss, "a nested graph is damaged", node, "export the model again");
    const Json& actual = inputs[place]["arg"];
    if (const auto found = scope.tensors.find(text_or_empty(actual["as_tensor"]["name"]));
        found != scope.tensors.end()) {
      inner.tensors.insert_or_assign(text_or_empty(formal[i]["as_tensor"]["name"]), found->second);
    } else if (const auto size = scope.sizes.find(text_or_empty(actual["as_sym_int"]["as_name"]));
               size != scope.sizes.end()) {
      inner.sizes.insert_or_assign(text_or_empty(formal[i]["as_sym_int"]["as_name"]), size->second);
    }
  }
  ++nesting;
  read_graph(inner);
  --nesting;
  const std::vector<std::string> names = output_names(node);
  const JsonArray& results = array_or_empty(inner_graph["outputs"]);
  for (std::size_t i = 0; i < std::min(names.size(), results.size()); ++i) {
    const auto found = inner.tensors.find(text_or_empty(results[i]["as_tensor"]["name"]));
    if (found != inner.tensors.end()) {
      scope.tensors.insert_or_assign(names[i], found->second);
    } else if (!names[i].empty()) {
      scope.lost.insert(names[i]);
    }
  }
}

}  // namespace coxswain::model
