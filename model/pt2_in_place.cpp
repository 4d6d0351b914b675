// In-place operators: the functional form computes the new content, the alias tracker puts it where it belongs.
#include <algorithm>
#include <array>
#include <set>

#include "model/op_values.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

// What changes the shape or the storage of a tensor that other names still hold, or draws random numbers.
constexpr std::array<std::string_view, 20> kRefused = {
    "aten::resize_",    "aten::set_",        "aten::as_strided_", "aten::squeeze_",   "aten::unsqueeze_",
    "aten::transpose_", "aten::t_",          "aten::swapaxes_",   "aten::swapdims_",  "aten::resize_as_",
    "aten::normal_",    "aten::uniform_",    "aten::random_",     "aten::bernoulli_", "aten::exponential_",
    "aten::geometric_", "aten::log_normal_", "aten::cauchy_",     "aten::detach_",    "aten::rename_"};

// torch's promotion of two floating types, or of an integer with a floating one.
DType promoted(DType a, DType b) {
  if (a == b) return a;
  const bool half_pair = (a == DType::Float16 && b == DType::BFloat16) || (a == DType::BFloat16 && b == DType::Float16);
  if (half_pair) return DType::Float32;
  return static_cast<int>(a) > static_cast<int>(b) ? a : b;
}

}  // namespace

void Pt2Reader::read_in_place(const Json& node, const std::string& target, Scope& scope) {
  const std::string name(base_name(target));
  const auto self = first_tensor(node, scope);
  if (!self || std::find(kRefused.begin(), kRefused.end(), name) != kRefused.end()) {
    return problem(ErrorCode::Unimplemented, "in-place operator " + target, node,
                   "use the out-of-place form in the model");
  }
  const ValueId before = tensors_.read(*self);
  const auto content = new_content(node, target, before, scope);
  if (!content) return;
  const Origin origin = origin_of(node, scope);
  if (const auto written = tensors_.write(*self, *content, origin); !written) {
    return problem(written.error().code, "in-place operator " + target + ": " + written.error().message, node,
                   written.error().hint);
  }
  for (const Json& output : array_or_empty(node["outputs"])) {
    const std::string result = text_or_empty(output["as_tensor"]["name"]);
    if (!result.empty()) scope.tensors.insert_or_assign(result, *self);
  }
}

ValueId Pt2Reader::cast_and_expand(ValueId value, ValueId like, const Origin& origin) {
  const std::vector<Dim> dims = graph_.values[like].dims;
  const DType dtype = graph_.values[like].dtype;
  if (graph_.values[value].dtype != dtype) {
    const std::string name = graph_.values[value].name + "_cast";
    const std::vector<Dim> own = graph_.values[value].dims;
    value = emit_op(graph_, "aten::to.dtype", {{"self", ValueRef{value}}, {"dtype", dtype}}, origin, name, own, dtype);
  }
  if (graph_.values[value].dims != dims) {
    const std::string name = graph_.values[value].name + "_expanded";
    value = emit_op(graph_, "aten::expand", {{"self", ValueRef{value}}, {"size", dims}}, origin, name, dims, dtype);
  }
  return value;
}

std::optional<ValueId> Pt2Reader::new_content(const Json& node, const std::string& target, ValueId self, Scope& scope) {
  const std::string name(base_name(target));
  const Origin origin = origin_of(node, scope);
  const std::string label =
      graph_.values[self].name + "_" + name.substr(std::string_view("aten::").size(), name.size() - 7);
  const std::vector<Dim> dims = graph_.values[self].dims;
  const DType dtype = graph_.values[self].dtype;
  const auto second = [&]() -> std::optional<Argument::Variant> {
    const JsonArray& inputs = array_or_empty(node["inputs"]);
    if (inputs.size() < 2) return std::nullopt;
    const SchemaArgument any{"value", SchemaKind::Tensor, false, true, 0, false, {}};
    auto value = read_argument(inputs[1]["arg"], any, scope);
    if (!value) {
      problem(value.error().code, "operator " + target + ": " + value.error().message, node, value.error().hint);
      return std::nullopt;
    }
    return std::move(*value);
  };
  if (name == "aten::zero_") {
    return emit_op(graph_, "aten::zeros_like", {{"self", ValueRef{self}}}, origin, label, dims, dtype);
  }
  if (name == "aten::fill_" || name == "aten::copy_") {
    const auto value = second();
    if (!value) return std::nullopt;
    if (const auto* reference = std::get_if<ValueRef>(&*value)) return cast_and_expand(reference->id, self, origin);
    return emit_op(graph_, "aten::full_like", {{"self", ValueRef{self}}, {"fill_value", *value}}, origin, label, dims,
                   dtype);
  }
  std::string functional = target;
  functional.erase(name.size() - 1, 1);
  if (find_schema(functional) == nullptr) {
    problem(ErrorCode::Unimplemented, "in-place operator " + target, node, "use the out-of-place form in the model");
    return std::nullopt;
  }
  auto op = read_op(node, functional, scope);
  if (!op) return std::nullopt;
  // The out-of-place form promotes, the in-place one keeps its own type.
  DType result = dtype;
  for_each_input(*op, [&](ValueId input) {
    const Value& value = graph_.values[input];
    if (is_floating_point(value.dtype) && !value.dims.empty()) result = promoted(result, value.dtype);
  });
  const ValueId value = add_value(graph_, label, dims, result);
  op->outputs.push_back(value);
  graph_.ops.push_back(std::move(*op));
  return cast_and_expand(value, self, origin);
}

// A buffer that is written must reach the next step; only one that the loss never reads (batch norm's counter) may be
// left.
void Pt2Reader::check_written_buffers() {
  std::set<ValueId> needed;
  for (const LossTerm& term : graph_.loss) {
    needed.insert(term.numerator);
    if (term.denominator) needed.insert(*term.denominator);
  }
  for (std::size_t i = graph_.ops.size(); i-- > 0;) {
    const Op& op = graph_.ops[i];
    if (std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId value) { return needed.contains(value); })) {
      for_each_input(op, [&](ValueId value) { needed.insert(value); });
    }
  }
  for (const ValueId value : tensors_.written_roots()) {
    const auto is_it = [&](const auto& named) { return named.value == value; };
    if (const auto parameter = std::find_if(graph_.parameters.begin(), graph_.parameters.end(), is_it);
        parameter != graph_.parameters.end()) {
      problems_.add({ErrorCode::Unimplemented, "the step writes to a parameter itself", parameter->name, "",
                     parameter->name, ""});
    }
    const auto buffer = std::find_if(graph_.buffers.begin(), graph_.buffers.end(), is_it);
    if (buffer != graph_.buffers.end() && needed.contains(value)) {
      problems_.add({ErrorCode::Unimplemented, "the step changes a buffer that later steps read", buffer->name, "",
                     buffer->name, "keep such state out of the model"});
    }
  }
}

}  // namespace coxswain::model
