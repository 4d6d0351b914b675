// Arguments of one operator: the archive's tagged unions to our variants, in schema order, defaults filled in.
#include <algorithm>
#include <limits>

#include "model/op_values.h"
#include "model/pt2_reader.h"

namespace coxswain::model {
namespace {

Error mismatch(const SchemaArgument& schema, const std::string& kind) {
  return Error{ErrorCode::Unimplemented,
               "argument '" + std::string(schema.name) + "' has a value of kind '" + kind + "'",
               "",
               "",
               "",
               ""};
}

// Infinities and NaN are stored as text.
std::optional<double> number_of(const Json& json) {
  if (json.is_number()) return json.number();
  const std::string text = text_or_empty(json);
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  return std::nullopt;
}

// A number where a list is wanted stands for `list_size` of them.
template <class Element>
std::vector<Element> repeated(const Element& element, const SchemaArgument& schema) {
  return std::vector<Element>(static_cast<std::size_t>(std::max(schema.list_size, 1)), element);
}

}  // namespace

std::optional<Op> Pt2Reader::read_op(const Json& node, const std::string& target, Scope& scope) {
  const OperatorSchema* schema = find_schema(target);
  if (schema == nullptr) {
    problem(ErrorCode::Unimplemented, "operator " + target + " is unknown", node,
            "only functional ATen operators can run");
    return std::nullopt;
  }
  const Origin origin = origin_of(node, scope);
  Op op{target, {}, {}, origin.module_path, origin.source, origin.grad_enabled};
  const JsonArray& given = array_or_empty(node["inputs"]);
  std::size_t used = 0;
  bool reads_float_size = false;
  for (const SchemaArgument& argument : schema->arguments) {
    const auto found = std::find_if(given.begin(), given.end(),
                                    [&](const Json& named) { return text_or_empty(named["name"]) == argument.name; });
    if (found == given.end()) {
      if (!argument.has_default) {
        problem(ErrorCode::DataLoss, "operator " + target + " lacks its argument '" + std::string(argument.name) + "'",
                node);
        return std::nullopt;
      }
      op.arguments.push_back({std::string(argument.name), argument.default_value});
      continue;
    }
    ++used;
    reads_float_size = reads_float_size || union_member((*found)["arg"]).first == "as_sym_float";
    auto value = read_argument((*found)["arg"], argument, scope);
    if (!value) {
      problem(value.error().code, "operator " + target + ": " + value.error().message, node, value.error().hint);
      return std::nullopt;
    }
    op.arguments.push_back({std::string(argument.name), std::move(*value)});
  }
  // It stands as an integer here, which would not promote integers to floating point.
  bool promotes = false;
  for_each_input(op, [&](ValueId value) { promotes = promotes || !is_floating_point(graph_.values[value].dtype); });
  if (reads_float_size && promotes) {
    problem(ErrorCode::Unimplemented, "operator " + target + " meets integers with a size as a floating-point number",
            node, "convert the tensor to floating point first");
    return std::nullopt;
  }
  if (used != given.size()) {
    problem(ErrorCode::Unimplemented, "operator " + target + " has an argument that its schema does not know", node);
    return std::nullopt;
  }
  return op;
}

Result<ValueRef> Pt2Reader::read_reference(const Json& name, Scope& scope) {
  const auto found = scope.tensors.find(text_or_empty(name));
  if (found == scope.tensors.end()) {
    const bool lost = scope.lost.contains(text_or_empty(name));
    return Error{lost ? ErrorCode::Cancelled : ErrorCode::DataLoss,
                 "tensor '" + text_or_empty(name) + "' is never produced",
                 "",
                 "",
                 "",
                 ""};
  }
  return ValueRef{tensors_.read(found->second)};
}

Result<Dim> Pt2Reader::read_named_size(const Json& size, const Scope& scope) const {
  if (size["as_int"].is_integer()) return Dim(size["as_int"].integer());
  const auto found = scope.sizes.find(text_or_empty(size["as_name"]));
  if (found == scope.sizes.end()) {
    return Error{ErrorCode::Unimplemented, "a size that is no integer expression of the batch", "", "", "", ""};
  }
  return found->second;
}

Result<Argument::Variant> Pt2Reader::read_argument(const Json& argument, const SchemaArgument& schema, Scope& scope) {
  const auto [kind, body] = union_member(argument);
  if (schema.kind == SchemaKind::Ignored) return Argument::Variant(Ignored{});
  if (kind == "as_none") return Argument::Variant(None{});
  if (schema.is_list) return read_list(kind, *body, schema, scope);
  if (kind == "as_tensor" || kind == "as_optional_tensor") {
    const Json& name = kind == "as_tensor" ? (*body)["name"] : (*body)["as_tensor"]["name"];
    if (name.is_null()) return Argument::Variant(None{});
    COX_TRY(const ValueRef reference, read_reference(name, scope));
    return Argument::Variant(reference);
  }
  if (kind == "as_bool" && body->is_bool()) {
    if (schema.kind != SchemaKind::Bool && schema.kind != SchemaKind::Number && schema.kind != SchemaKind::Tensor)
      return mismatch(schema, kind);
    return Argument::Variant(body->boolean());
  }
  if (kind == "as_int" && body->is_integer()) {
    if (schema.kind == SchemaKind::Float) return Argument::Variant(static_cast<double>(body->integer()));
    if (schema.kind == SchemaKind::Bool) return Argument::Variant(body->integer() != 0);
    if (schema.kind == SchemaKind::String || schema.kind == SchemaKind::ScalarType) return mismatch(schema, kind);
    return Argument::Variant(Dim(body->integer()));
  }
  if (kind == "as_float") {
    const auto number = number_of(*body);
    const bool fits =
        schema.kind == SchemaKind::Float || schema.kind == SchemaKind::Number || schema.kind == SchemaKind::Tensor;
    if (!number || !fits) return mismatch(schema, kind);
    return Argument::Variant(*number);
  }
  if (kind == "as_string" && schema.kind == SchemaKind::String && body->is_string())
    return Argument::Variant(body->string());
  if (kind == "as_scalar_type" && schema.kind == SchemaKind::ScalarType && body->is_integer()) {
    const auto dtype = dtype_of_code(body->integer());
    if (!dtype) return mismatch(schema, kind);
    return Argument::Variant(*dtype);
  }
  if (kind == "as_sym_int") {
    COX_TRY(Dim size, read_named_size(*body, scope));
    return Argument::Variant(std::move(size));
  }
  if (kind == "as_sym_bool" && (*body)["as_bool"].is_bool()) return Argument::Variant((*body)["as_bool"].boolean());
  if (kind == "as_sym_float") {
    const auto found = scope.sizes.find(text_or_empty((*body)["as_name"]));
    if (found != scope.sizes.end() && !schema.is_list) return Argument::Variant(found->second);
    if (const auto number = number_of((*body)["as_float"])) return Argument::Variant(*number);
  }
  return mismatch(schema, kind);
}

Result<Argument::Variant> Pt2Reader::read_list(const std::string& kind, const Json& value, const SchemaArgument& schema,
                                               Scope& scope) {
  const JsonArray& items = array_or_empty(value);
  if (schema.kind == SchemaKind::Tensor) {
    std::vector<std::optional<ValueRef>> references;
    if (kind == "as_tensor") {
      COX_TRY(const ValueRef reference, read_reference(value["name"], scope));
      references.emplace_back(reference);
      return Argument::Variant(std::move(references));
    }
    if (kind != "as_tensors" && kind != "as_optional_tensors" && !items.empty()) return mismatch(schema, kind);
    for (const Json& item : items) {
      const Json& name = kind == "as_tensors" ? item["name"] : item["as_tensor"]["name"];
      if (name.is_null()) {
        references.emplace_back();
        continue;
      }
      COX_TRY(const ValueRef reference, read_reference(name, scope));
      references.emplace_back(reference);
    }
    return Argument::Variant(std::move(references));
  }
  if (schema.kind == SchemaKind::Float || schema.kind == SchemaKind::Number) {
    if (const auto single = kind == "as_float" || kind == "as_int" ? number_of(value) : std::nullopt) {
      return Argument::Variant(repeated(*single, schema));
    }
    std::vector<double> numbers;
    for (const Json& item : items) {
      const auto number = number_of(item);
      if (!number) return mismatch(schema, kind);
      numbers.push_back(*number);
    }
    return Argument::Variant(std::move(numbers));
  }
  if (schema.kind == SchemaKind::Bool) {
    std::vector<bool> flags;
    for (const Json& item : items) {
      if (!item.is_bool()) return mismatch(schema, kind);
      flags.push_back(item.boolean());
    }
    return Argument::Variant(std::move(flags));
  }
  if (schema.kind != SchemaKind::Int) return mismatch(schema, kind);
  if (kind == "as_int" && value.is_integer()) return Argument::Variant(repeated(Dim(value.integer()), schema));
  std::vector<Dim> sizes;
  for (const Json& item : items) {
    if (item.is_integer()) {
      sizes.emplace_back(item.integer());
      continue;
    }
    COX_TRY(Dim size, kind == "as_sym_ints" ? read_named_size(item, scope) : Result<Dim>(mismatch(schema, kind)));
    sizes.push_back(std::move(size));
  }
  return Argument::Variant(std::move(sizes));
}

}  // namespace coxswain::model
