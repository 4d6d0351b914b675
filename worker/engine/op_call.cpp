#include "worker/engine/op_call.h"

#include <ATen/core/List.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "common/ensure.h"
#include "plan/layout/held_rows.h"
#include "worker/engine/attention.h"
#include "worker/engine/block_storages.h"
#include "worker/engine/expert_linear.h"
#include "worker/engine/expert_tokens.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

c10::OperatorName operator_name(const std::string& target) {
  const std::size_t dot = target.find('.');
  if (dot == std::string::npos) return {target, ""};
  std::string overload = target.substr(dot + 1);
  return {target.substr(0, dot), overload == "default" ? "" : overload};
}

// Operators that draw from libtorch's own generator: their result would depend on the plan.
constexpr std::array<std::string_view, 14> kRandomOperators = {"aten::rand",
                                                               "aten::randn",
                                                               "aten::randint",
                                                               "aten::rand_like",
                                                               "aten::randn_like",
                                                               "aten::randint_like",
                                                               "aten::randperm",
                                                               "aten::bernoulli",
                                                               "aten::multinomial",
                                                               "aten::normal",
                                                               "aten::alpha_dropout",
                                                               "aten::feature_dropout",
                                                               "aten::feature_alpha_dropout",
                                                               "aten::rrelu"};

bool is_random(const std::string& name) {
  return std::find(kRandomOperators.begin(), kRandomOperators.end(), name) != kRandomOperators.end();
}

Error does_not_fit(const model::Op& op, const c10::Argument& schema) {
  return Error{ErrorCode::InvalidArgument,
               "an argument does not fit the operator's schema",
               op.module_path.empty() ? op.target : op.module_path + " (" + op.target + ")",
               schema.name() + ": " + schema.type()->annotation_str(),
               "",
               ""};
}

// A number given where the schema wants a tensor: a wrapped number takes no part in type promotion.
at::Tensor wrapped_number(const c10::Scalar& scalar) {
  at::Tensor tensor =
      at::scalar_tensor(scalar, at::TensorOptions().dtype(scalar.isFloatingPoint() ? c10::ScalarType::Double
                                                          : scalar.isBoolean()     ? c10::ScalarType::Bool
                                                                                   : c10::ScalarType::Long));
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

std::vector<std::int64_t> evaluate(const std::vector<model::Dim>& dims, const model::Bindings& bindings) {
  std::vector<std::int64_t> values;
  for (const model::Dim& dim : dims) values.push_back(dim.evaluate(bindings));
  return values;
}

const c10::Type& without_optional(const c10::Type& type) {
  if (const auto* optional = type.castRaw<c10::OptionalType>()) return *optional->getElementType();
  return type;
}

bool is_kind(const c10::Type& type, c10::TypeKind kind) { return type.kind() == kind; }
bool is_int(const c10::Type& type) {
  return is_kind(type, c10::TypeKind::IntType) || is_kind(type, c10::TypeKind::SymIntType);
}

// Layout, device and memory format: absent where the schema allows it, else what a CPU tensor has.
c10::IValue own_default(const c10::Argument& schema) {
  const c10::Type& type = *schema.real_type();
  if (type.castRaw<c10::OptionalType>()) return {};
  if (is_kind(type, c10::TypeKind::DeviceObjType)) return c10::Device(c10::DeviceType::CPU);
  if (is_kind(type, c10::TypeKind::LayoutType)) return static_cast<std::int64_t>(c10::Layout::Strided);
  if (is_kind(type, c10::TypeKind::MemoryFormatType)) return static_cast<std::int64_t>(c10::MemoryFormat::Contiguous);
  if (schema.default_value()) return *schema.default_value();
  if (is_kind(type, c10::TypeKind::BoolType)) return false;
  return {};
}

std::optional<c10::IValue> number_value(const c10::Type& type, const c10::Scalar& scalar) {
  if (is_kind(type, c10::TypeKind::TensorType)) return c10::IValue(wrapped_number(scalar));
  if (is_kind(type, c10::TypeKind::FloatType)) return c10::IValue(scalar.toDouble());
  if (is_kind(type, c10::TypeKind::BoolType)) return c10::IValue(scalar.toBool());
  if (is_int(type)) return c10::IValue(scalar.toLong());
  if (is_kind(type, c10::TypeKind::NumberType)) return c10::IValue(scalar);
  if (const auto* list = type.castRaw<c10::ListType>()) {
    if (is_kind(*list->getElementType(), c10::TypeKind::FloatType))
      return c10::IValue(c10::List<double>({scalar.toDouble()}));
    if (is_int(*list->getElementType())) return c10::IValue(c10::List<std::int64_t>({scalar.toLong()}));
  }
  return std::nullopt;
}

struct ConstantValue {
  const c10::Argument& schema;
  const model::Bindings& bindings;

  [[nodiscard]] const c10::Type& type() const { return without_optional(*schema.real_type()); }
  [[nodiscard]] bool is_list_of(c10::TypeKind kind) const {
    const auto* list = type().castRaw<c10::ListType>();
    return list && list->getElementType()->kind() == kind;
  }

  std::optional<c10::IValue> operator()(model::None) const { return c10::IValue(); }
  std::optional<c10::IValue> operator()(model::Ignored) const { return own_default(schema); }
  std::optional<c10::IValue> operator()(const model::ValueRef&) const { return std::nullopt; }
  std::optional<c10::IValue> operator()(const std::vector<std::optional<model::ValueRef>>&) const {
    return std::nullopt;
  }
  std::optional<c10::IValue> operator()(const model::Dim& dim) const { return list_or_number(dim.evaluate(bindings)); }
  std::optional<c10::IValue> operator()(double value) const { return number_value(type(), value); }
  std::optional<c10::IValue> operator()(bool value) const { return number_value(type(), c10::Scalar(value)); }
  std::optional<c10::IValue> operator()(const std::string& text) const { return c10::IValue(text); }
  std::optional<c10::IValue> operator()(DType dtype) const {
    return c10::IValue(static_cast<std::int64_t>(scalar_type_of(dtype)));
  }
  std::optional<c10::IValue> operator()(const std::vector<model::Dim>& dims) const {
    const auto values = evaluate(dims, bindings);
    if (is_list_of(c10::TypeKind::FloatType))
      return c10::IValue(c10::List<double>(at::ArrayRef<double>(std::vector<double>(values.begin(), values.end()))));
    if (is_list_of(c10::TypeKind::NumberType)) return scalars(values);
    return c10::IValue(c10::List<std::int64_t>(at::IntArrayRef(values)));
  }
  std::optional<c10::IValue> operator()(const std::vector<double>& values) const {
    if (is_list_of(c10::TypeKind::NumberType)) return scalars(values);
    return c10::IValue(c10::List<double>(at::ArrayRef<double>(values)));
  }
  std::optional<c10::IValue> operator()(const std::vector<bool>& values) const {
    c10::List<bool> list;
    for (const bool value : values) list.push_back(value);
    return c10::IValue(list);
  }

 private:
  // int[2] given one integer means both.
  [[nodiscard]] std::optional<c10::IValue> list_or_number(std::int64_t value) const {
    if (schema.N() && type().castRaw<c10::ListType>() &&
        (is_list_of(c10::TypeKind::IntType) || is_list_of(c10::TypeKind::SymIntType))) {
      return c10::IValue(c10::List<std::int64_t>(at::IntArrayRef(std::vector<std::int64_t>(*schema.N(), value))));
    }
    return number_value(type(), c10::Scalar(value));
  }
  template <class T>
  static std::optional<c10::IValue> scalars(const std::vector<T>& values) {
    c10::List<c10::Scalar> list;
    for (const T value : values) list.push_back(c10::Scalar(value));
    return c10::IValue(list);
  }
};

// Kernels take the number that multiplies or divides in float32, whatever the tensors are.
bool is_factor(std::string_view target) {
  return target.starts_with("aten::mul") || target.starts_with("aten::div") || target.starts_with("aten::true_divide");
}

// A finite number that 16 bits do not hold (a mask's float32 minimum) becomes the nearest one that they do.
model::Argument::Variant in_range(const model::Argument::Variant& value, std::string_view target,
                                  const Casting& casting) {
  const auto* number = std::get_if<double>(&value);
  if (!number || !std::isfinite(*number)) return value;
  // What is computed in float32 has no less than bfloat16's range.
  const double largest = largest_finite(casting.wide || is_factor(target) ? DType::BFloat16 : casting.dtype);
  return std::clamp(*number, -largest, largest);
}

}  // namespace

model::ValueId OpCall::add_input(const model::ModelGraph& graph, model::ValueId value) {
  if (casting_.rule == ComputeRule::AsStored) return value;
  if (const int p = trainable_parameter(graph, value); p >= 0) return casting_.reads_copies ? copy_of(graph, p) : value;
  if (graph.values[value].depends_on_parameter && graph.values[value].producer >= 0) activations_.push_back(value);
  return value;
}

Result<void> OpCall::add_argument(const model::ModelGraph& graph, const model::Argument::Variant& value,
                                  const c10::Argument& schema, const model::Bindings& bindings) {
  const int position = static_cast<int>(arguments_.size());
  arguments_.emplace_back();
  if (const auto* reference = std::get_if<model::ValueRef>(&value)) {
    tensors_.push_back({position, add_input(graph, reference->id)});
    return {};
  }
  if (const auto* list = std::get_if<std::vector<std::optional<model::ValueRef>>>(&value)) {
    ListSlot slot{position, false, {}};
    const auto* type = without_optional(*schema.real_type()).castRaw<c10::ListType>();
    if (!type) return does_not_fit(graph.ops[op_], schema);
    slot.elements_optional = type->getElementType()->castRaw<c10::OptionalType>() != nullptr;
    for (const auto& element : *list) slot.values.push_back(element ? add_input(graph, element->id) : -1);
    lists_.push_back(std::move(slot));
    return {};
  }
  const bool mixed = casting_.rule != ComputeRule::AsStored;
  auto constant =
      std::visit(ConstantValue{schema, bindings}, mixed ? in_range(value, graph.ops[op_].target, casting_) : value);
  if (!constant) return does_not_fit(graph.ops[op_], schema);
  arguments_[position] = std::move(*constant);
  return {};
}

Result<OpCall> OpCall::make(const model::ModelGraph& graph, model::OpId id, std::int64_t samples, Casting casting,
                            const LocalView* view) {
  register_expert_operators();
  const model::Op& op = graph.ops[id];
  OpCall call;
  call.op_ = id;
  call.whole_op_ = view && view->part ? view->part->origin[id] : id;
  call.casting_ = casting;
  call.grad_enabled_ = op.grad_enabled;
  call.outputs_ = op.outputs;
  if (find_mesh_kernel(op.target)) return make_mesh_call(graph, std::move(call), view);
  const auto handle = c10::Dispatcher::singleton().findSchema(operator_name(op.target));
  if (!handle)
    return Error{ErrorCode::InvalidArgument, "operator without a kernel: " + op.target, op.module_path, "", "", ""};
  call.handle_ = *handle;
  const model::Bindings bindings{{graph.batch_symbol, samples}};
  const auto& schema_arguments = handle->schema().arguments();
  for (std::size_t i = 0; i < schema_arguments.size(); ++i) {
    const c10::Argument& schema = schema_arguments[i];
    const auto given = std::find_if(op.arguments.begin(), op.arguments.end(),
                                    [&](const model::Argument& a) { return a.name == schema.name(); });
    if (given != op.arguments.end()) {
      COX_TRY_VOID(call.add_argument(graph, given->value, schema, bindings));
    } else if (i < op.arguments.size() && op.arguments[i].name.empty()) {
      COX_TRY_VOID(call.add_argument(graph, op.arguments[i].value, schema, bindings));
    } else {
      call.arguments_.push_back(schema.default_value() ? *schema.default_value() : own_default(schema));
    }
  }
  call.find_special();
  if (call.special_ == Special::Dropout || call.special_ == Special::Attention)
    call.locate_samples(graph, call.tensors_.front().value, view);
  return call;
}

Result<OpCall> OpCall::make_mesh_call(const model::ModelGraph& graph, OpCall call, const LocalView* view) {
  const model::Op& op = graph.ops[call.op_];
  if (!view || !view->link)
    return Error{
        ErrorCode::InvalidArgument, "an operator of a mesh outside of one: " + op.target, op.module_path, "", "", ""};
  call.special_ = Special::Mesh;
  call.mesh_kernel_ = find_mesh_kernel(op.target);
  call.mesh_op_ = op;
  call.link_ = view->link;
  for (const model::Block& block : graph.blocks)
    if (call.op_ >= block.first_op && call.op_ < block.end_op) call.where_ = "block " + block.name + ": ";
  call.where_ += (op.module_path.empty() ? "" : op.module_path + ": ") + op.target;
  for (const model::Argument& argument : op.arguments)
    if (const auto* reference = std::get_if<model::ValueRef>(&argument.value))
      call.tensors_.push_back({-1, call.add_input(graph, reference->id)});
  if (op.target == "coxswain::ring_attention") call.locate_samples(graph, call.tensors_.front().value, view);
  return call;
}

// Samples and elements count in the whole tensor: masks do not depend on the mesh.
void OpCall::locate_samples(const model::ModelGraph& graph, model::ValueId value, const LocalView* view) {
  place_.rows_per_sample = 0;
  if (value >= static_cast<model::ValueId>(graph.values.size())) return;  // a copy of a parameter: no samples
  const model::ModelGraph* whole = &graph;
  const model::ValueId held = value;
  if (view && view->part && whole_op_ >= 0) {
    whole = view->whole;
    const auto& arguments = whole->ops[whole_op_].arguments;
    const auto first = std::find_if(arguments.begin(), arguments.end(), [](const model::Argument& argument) {
      return std::holds_alternative<model::ValueRef>(argument.value);
    });
    COX_ENSURE(first != arguments.end(), graph.ops[op_].target);
    value = std::get<model::ValueRef>(first->value).id;
  }
  if (const auto found = sample_dim_of(*whole, value)) {
    place_.sample_dim = found->dim;
    place_.rows_per_sample = found->multiple;
  }
  if (whole == &graph || view->cuts_of(held).empty()) return;
  auto part = std::make_shared<PartIndex>();
  part->sizes = sizes_of(*whole, value, view->part->graph.static_batch);
  part->rows = plan::held_rows(part->sizes, view->cuts_of(held));
  place_.part = std::move(part);
}

void OpCall::find_special() {
  const std::string& name = handle_->operator_name().name;
  if (tensors_.empty()) return;
  if (name == "aten::dropout" || name == "aten::native_dropout") {
    dropout_probability_ = arguments_[1].toScalar().toDouble();
    const bool active = arguments_[2].isNone() || arguments_[2].toBool();
    if (!active) dropout_probability_ = 0;
    special_ = Special::Dropout;
  } else if (name == "aten::scaled_dot_product_attention") {
    dropout_probability_ = arguments_[4].toScalar().toDouble();
    if (dropout_probability_ == 0) return;
    special_ = Special::Attention;
  } else if (name == "aten::batch_norm" || name == "aten::native_batch_norm") {
    special_ = Special::BatchNorm;
    training_position_ = 5;
    momentum_position_ = 6;
  }
}

std::optional<c10::ScalarType> OpCall::compute_dtype(const std::vector<at::Tensor>& values) const {
  std::optional<c10::ScalarType> widest;
  const c10::ScalarType narrow = scalar_type_of(casting_.dtype);
  switch (casting_.rule) {
    case ComputeRule::AsStored:
    case ComputeRule::Float32Inside: break;
    case ComputeRule::Narrow: return narrow;
    case ComputeRule::Float32:
    case ComputeRule::Float32Rounded: return c10::ScalarType::Float;
    case ComputeRule::Follow:
      for (const model::ValueId value : activations_) {
        const c10::ScalarType type = values[value].scalar_type();
        if (type == c10::ScalarType::Float || (type == narrow && !widest)) widest = type;
      }
  }
  return widest;
}

at::Tensor OpCall::cast(const std::vector<at::Tensor>& values, model::ValueId value,
                        std::optional<c10::ScalarType> dtype) const {
  const at::Tensor& tensor = values[value];
  const c10::ScalarType type = tensor.scalar_type();
  const c10::ScalarType narrow = scalar_type_of(casting_.dtype);
  if (!dtype || type == *dtype || (type != c10::ScalarType::Float && type != narrow)) return tensor;
  const bool is_activation = std::find(activations_.begin(), activations_.end(), value) != activations_.end();
  const bool clamps = *dtype == narrow && !is_activation && !tensor.requires_grad();
  at::Tensor copy = clamps ? finite_in(tensor, casting_.dtype) : tensor.to(*dtype);
  MadeTensors::add(copy);
  return copy;
}

void OpCall::fill_stack(const std::vector<at::Tensor>& values) {
  stack_.assign(arguments_.begin(), arguments_.end());
  const auto dtype = compute_dtype(values);
  for (const TensorSlot& slot : tensors_) stack_[slot.position] = cast(values, slot.value, dtype);
  for (const ListSlot& slot : lists_) {
    if (slot.elements_optional) {
      c10::List<std::optional<at::Tensor>> list;
      for (const model::ValueId value : slot.values)
        list.push_back(value < 0 ? std::optional<at::Tensor>() : std::optional<at::Tensor>(cast(values, value, dtype)));
      stack_[slot.position] = std::move(list);
    } else {
      c10::List<at::Tensor> list;
      for (const model::ValueId value : slot.values) list.push_back(cast(values, value, dtype));
      stack_[slot.position] = std::move(list);
    }
  }
}

void OpCall::store_outputs(std::vector<at::Tensor>& values) {
  std::size_t next = 0;
  const auto store = [&](at::Tensor tensor) {
    if (casting_.rule == ComputeRule::Float32Rounded && tensor.scalar_type() == c10::ScalarType::Float)
      tensor = tensor.to(scalar_type_of(casting_.dtype));
    if (next < outputs_.size() && outputs_[next] >= 0) values[outputs_[next]] = std::move(tensor);
    ++next;
  };
  for (c10::IValue& result : stack_) {
    if (result.isTensorList()) {
      for (at::Tensor& tensor : result.toTensorVector()) store(std::move(tensor));
    } else if (result.isTensor()) {
      store(std::move(result).toTensor());
    } else {
      ++next;
    }
  }
  stack_.clear();
}

void OpCall::run_dropout(std::vector<at::Tensor>& values, const RunMode& mode) {
  const at::Tensor& input = values[tensors_.front().value];
  const bool active = mode.dropout && dropout_probability_ > 0;
  COX_ENSURE(outputs_.size() == 1 || outputs_[1] < 0, "the mask of native_dropout is not kept");
  if (!active) {
    values[outputs_[0]] = input;
    return;
  }
  DropoutPlace place = place_;
  place.first_sample = mode.first_sample;
  values[outputs_[0]] =
      dropout(input, make_dropout_stream(mode.seed, mode.step, whole_op_, dropout_probability_), place);
}

bool OpCall::run_attention(std::vector<at::Tensor>& values, const RunMode& mode) {
  if (!mode.dropout) {
    stack_[4] = 0.0;
    return false;
  }
  AttentionArguments arguments;
  arguments.query = stack_[0].toTensor();
  arguments.key = stack_[1].toTensor();
  arguments.value = stack_[2].toTensor();
  if (!stack_[3].isNone()) arguments.mask = stack_[3].toTensor();
  arguments.is_causal = stack_[5].toBool();
  if (!stack_[6].isNone()) arguments.scale = stack_[6].toDouble();
  arguments.stream = make_dropout_stream(mode.seed, mode.step, whole_op_, dropout_probability_);
  arguments.place = place_;
  arguments.place.first_sample = mode.first_sample;
  stack_.clear();
  values[outputs_[0]] = dropout_attention(arguments);
  return true;
}

void OpCall::run_mesh_kernel(std::vector<at::Tensor>& values, const RunMode& mode) {
  const auto dtype = compute_dtype(values);
  std::vector<at::Tensor> inputs;
  for (const TensorSlot& slot : tensors_) inputs.push_back(cast(values, slot.value, dtype));
  stack_.clear();
  stack_.emplace_back(mesh_kernel_(MeshCall(mesh_op_, inputs, *link_, mode, where_, whole_op_, place_)));
  store_outputs(values);
}

void OpCall::run(std::vector<at::Tensor>& values, const RunMode& mode) {
  run_uncounted(values, mode);
  if (counter_ != nullptr && mode.training && !mode.replay) counter_->add(values[counter_->indices]);
}

void OpCall::run_uncounted(std::vector<at::Tensor>& values, const RunMode& mode) {
  const at::AutoGradMode grad_mode(at::GradMode::is_enabled() && grad_enabled_);
  if (special_ == Special::Mesh) return run_mesh_kernel(values, mode);
  if (special_ == Special::Dropout) return run_dropout(values, mode);
  fill_stack(values);
  if (special_ == Special::Attention && run_attention(values, mode)) return;
  if (special_ == Special::BatchNorm) {
    if (mode.running_statistics) stack_[training_position_] = false;
    if (mode.replay) stack_[momentum_position_] = 0.0;
  }
  handle_->callBoxed(stack_);
  store_outputs(values);
}

bool has_kernel(const std::string& target) {
  register_expert_operators();
  if (find_mesh_kernel(target)) return true;
  const c10::OperatorName name = operator_name(target);
  if (is_random(name.name)) return false;
  const auto handle = c10::Dispatcher::singleton().findSchema(name);
  return handle && handle->hasComputedKernelForDispatchKey(c10::DispatchKey::CPU);
}

}  // namespace coxswain::worker
