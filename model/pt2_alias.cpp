#include "model/pt2_alias.h"

#include <algorithm>
#include <array>

#include "model/op_values.h"

namespace coxswain::model {
namespace {

// Views that keep the order of elements: the inverse is a reshape to the shape before.
constexpr std::array<std::string_view, 8> kSameOrder = {"aten::view",      "aten::reshape",     "aten::flatten",
                                                        "aten::unflatten", "aten::squeeze",     "aten::unsqueeze",
                                                        "aten::view_as",   "aten::_unsafe_view"};
constexpr std::array<std::string_view, 3> kIdentity = {"aten::alias", "aten::contiguous", "aten::to"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

TensorId AliasTracker::add_root(ValueId value, bool given) {
  storages_.push_back(Storage{value, value, 0, given, false});
  tensors_.push_back(Tensor{static_cast<int>(storages_.size()) - 1, {}, value, 0});
  return static_cast<TensorId>(tensors_.size()) - 1;
}

TensorId AliasTracker::add_view(TensorId base, const Op& op, std::size_t output, ValueId value) {
  Tensor tensor{tensors_[base].storage, tensors_[base].steps, value, storages_[tensors_[base].storage].version};
  tensor.steps.push_back(Step{op, output, value});
  tensors_.push_back(std::move(tensor));
  return static_cast<TensorId>(tensors_.size()) - 1;
}

TensorId AliasTracker::add_unclear(TensorId base, ValueId value) {
  const TensorId tensor = add_root(value);
  storages_[tensors_[tensor].storage].unclear = true;
  storages_[tensors_[base].storage].unclear = true;
  return tensor;
}

ValueId AliasTracker::derive(const Step& step, ValueId base) {
  Op op = step.op;
  op.arguments.front().value = ValueRef{base};
  const Value& like = graph_.values[step.result];
  const ValueId result = add_value(graph_, like.name + "_again", like.dims, like.dtype);
  for (std::size_t i = 0; i < op.outputs.size(); ++i) op.outputs[i] = i == step.output ? result : -1;
  graph_.ops.push_back(std::move(op));
  return result;
}

ValueId AliasTracker::read(TensorId tensor) {
  const Storage& storage = storages_[tensors_[tensor].storage];
  if (tensors_[tensor].version != storage.version) {
    ValueId value = storage.value;
    for (const Step& step : tensors_[tensor].steps) value = derive(step, value);
    tensors_[tensor].value = value;
    tensors_[tensor].version = storage.version;
  }
  return tensors_[tensor].value;
}

Result<void> AliasTracker::write(TensorId tensor, ValueId value, const Origin& origin) {
  Storage& storage = storages_[tensors_[tensor].storage];
  if (storage.unclear) {
    return Error{ErrorCode::Unimplemented,
                 "write to a tensor that may share memory with a reshaped one",
                 origin.module_path,
                 "",
                 origin.source,
                 "use the out-of-place form in the model"};
  }
  const std::vector<Step>& steps = tensors_[tensor].steps;
  // before[i]: what step i looks at.
  std::vector<ValueId> before{storage.value};
  for (std::size_t i = 0; i + 1 < steps.size(); ++i) before.push_back(derive(steps[i], before.back()));
  ValueId written = value;
  for (std::size_t i = steps.size(); i-- > 0;) {
    COX_TRY(written, invert(steps[i], before[i], written, origin));
  }
  storage.value = written;
  ++storage.version;
  tensors_[tensor].value = value;
  tensors_[tensor].version = storage.version;
  if (storage.given && std::find(written_roots_.begin(), written_roots_.end(), storage.first) == written_roots_.end()) {
    written_roots_.push_back(storage.first);
  }
  return {};
}

// First and end index, along the view's dim, of the slice that `step` took.
std::optional<std::pair<Dim, Dim>> AliasTracker::part_of(const Step& step, ValueId base, ValueId value) const {
  const std::string_view name = base_name(step.op.target);
  const auto dim = integer_argument(step.op, "dim");
  if (!dim) return std::nullopt;
  const auto& sizes = graph_.values[base].dims;
  const std::size_t axis = wrap_dim(*dim, sizes.size());
  if (axis >= sizes.size() || axis >= graph_.values[value].dims.size()) return std::nullopt;
  const Dim length = graph_.values[value].dims[axis];
  const auto output = static_cast<std::int64_t>(step.output);
  Dim first;
  if (name == "aten::narrow") {
    const Argument* start = find_argument(step.op, "start");
    if (start == nullptr || !std::holds_alternative<Dim>(start->value)) return std::nullopt;
    first = std::get<Dim>(start->value);
  } else if (step.op.target == "aten::split.Tensor") {
    const auto size = integer_argument(step.op, "split_size");
    if (!size) return std::nullopt;
    first = Dim(*size * output);
  } else if (name == "aten::split_with_sizes" || step.op.target == "aten::split.sizes") {
    const auto parts = integers_argument(step.op, name == "aten::split_with_sizes" ? "split_sizes" : "split_size");
    if (!parts || step.output > parts->size()) return std::nullopt;
    for (std::size_t i = 0; i < step.output; ++i) first = first + Dim((*parts)[i]);
  } else if (name == "aten::chunk") {
    const auto chunks = integer_argument(step.op, "chunks");
    if (!chunks || *chunks < 1 || !sizes[axis].is_constant()) return std::nullopt;
    first = Dim((sizes[axis].constant() + *chunks - 1) / *chunks * output);
  } else {
    return std::nullopt;
  }
  return std::make_pair(first, first + length);
}

Result<ValueId> AliasTracker::invert(const Step& step, ValueId base, ValueId value, const Origin& origin) {
  const std::string_view name = base_name(step.op.target);
  if (is_one_of(name, kIdentity)) return value;
  const std::string label = graph_.values[base].name + "_written";
  const std::vector<Dim> dims = graph_.values[base].dims;
  const DType dtype = graph_.values[base].dtype;
  const auto emit = [&](std::string_view target, NamedArguments arguments) {
    return emit_op(graph_, target, arguments, origin, label, dims, dtype);
  };
  const auto argument = [&](std::string_view key) {
    const Argument* found = find_argument(step.op, key);
    return found == nullptr ? Argument::Variant(None{}) : found->value;
  };
  if (is_one_of(name, kSameOrder)) return emit("aten::reshape", {{"self", ValueRef{value}}, {"shape", dims}});
  if (name == "aten::t") return emit("aten::t", {{"self", ValueRef{value}}});
  if (step.op.target == "aten::transpose.int") {
    return emit("aten::transpose.int",
                {{"self", ValueRef{value}}, {"dim0", argument("dim0")}, {"dim1", argument("dim1")}});
  }
  if (name == "aten::permute") {
    if (const auto order = integers_argument(step.op, "dims"); order && order->size() == dims.size()) {
      std::vector<Dim> inverse(order->size());
      for (std::size_t i = 0; i < order->size(); ++i)
        inverse[wrap_dim((*order)[i], dims.size())] = Dim(static_cast<std::int64_t>(i));
      return emit("aten::permute", {{"self", ValueRef{value}}, {"dims", inverse}});
    }
  }
  if (step.op.target == "aten::slice.Tensor") {
    return emit("aten::slice_scatter", {{"self", ValueRef{base}},
                                        {"src", ValueRef{value}},
                                        {"dim", argument("dim")},
                                        {"start", argument("start")},
                                        {"end", argument("end")},
                                        {"step", argument("step")}});
  }
  if (step.op.target == "aten::select.int" || step.op.target == "aten::unbind.int") {
    const Argument::Variant index =
        name == "aten::unbind" ? Argument::Variant(Dim(static_cast<std::int64_t>(step.output))) : argument("index");
    return emit("aten::select_scatter",
                {{"self", ValueRef{base}}, {"src", ValueRef{value}}, {"dim", argument("dim")}, {"index", index}});
  }
  if (const auto part = part_of(step, base, value)) {
    return emit("aten::slice_scatter", {{"self", ValueRef{base}},
                                        {"src", ValueRef{value}},
                                        {"dim", argument("dim")},
                                        {"start", part->first},
                                        {"end", part->second}});
  }
  return Error{ErrorCode::Unimplemented,
               "write through the view " + step.op.target,
               origin.module_path,
               "",
               origin.source,
               "use the out-of-place form in the model"};
}

}  // namespace coxswain::model
