#pragma once
// Small readers of an operator's arguments, shared by the passes of model/. Private to this folder. Threads: pure.
#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "model/model_graph.h"

namespace coxswain::model {

/// Calls `visit(ValueId)` for every tensor that `op` reads, in argument order (a value may occur twice).
template <class Visit>
void for_each_input(const Op& op, Visit&& visit) {
  for (const Argument& argument : op.arguments) {
    if (const auto* reference = std::get_if<ValueRef>(&argument.value)) {
      visit(reference->id);
    } else if (const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&argument.value)) {
      for (const auto& element : *list)
        if (element) visit(element->id);
    }
  }
}

[[nodiscard]] inline const Argument* find_argument(const Op& op, std::string_view name) {
  for (const Argument& argument : op.arguments)
    if (argument.name == name) return &argument;
  return nullptr;
}

/// The tensor argument `name`, or -1.
[[nodiscard]] inline ValueId value_argument(const Op& op, std::string_view name) {
  const Argument* argument = find_argument(op, name);
  if (argument == nullptr) return -1;
  const auto* reference = std::get_if<ValueRef>(&argument->value);
  return reference == nullptr ? -1 : reference->id;
}

/// A constant integer argument.
[[nodiscard]] inline std::optional<std::int64_t> integer_argument(const Op& op, std::string_view name) {
  const Argument* argument = find_argument(op, name);
  if (argument == nullptr) return std::nullopt;
  const auto* dim = std::get_if<Dim>(&argument->value);
  if (dim == nullptr || !dim->is_constant()) return std::nullopt;
  return dim->constant();
}

/// A list of constant integers; absent when it is missing or holds a symbol.
[[nodiscard]] inline std::optional<std::vector<std::int64_t>> integers_argument(const Op& op, std::string_view name) {
  const Argument* argument = find_argument(op, name);
  if (argument == nullptr) return std::nullopt;
  if (const auto* dim = std::get_if<Dim>(&argument->value); dim != nullptr && dim->is_constant())
    return std::vector<std::int64_t>{dim->constant()};
  const auto* dims = std::get_if<std::vector<Dim>>(&argument->value);
  if (dims == nullptr) return std::nullopt;
  std::vector<std::int64_t> values;
  for (const Dim& dim : *dims) {
    if (!dim.is_constant()) return std::nullopt;
    values.push_back(dim.constant());
  }
  return values;
}

[[nodiscard]] inline bool bool_argument(const Op& op, std::string_view name, bool otherwise) {
  const Argument* argument = find_argument(op, name);
  const auto* value = argument == nullptr ? nullptr : std::get_if<bool>(&argument->value);
  return value == nullptr ? otherwise : *value;
}

/// A float argument; an integer is taken too.
[[nodiscard]] inline double number_argument(const Op& op, std::string_view name, double otherwise) {
  const Argument* argument = find_argument(op, name);
  if (argument == nullptr) return otherwise;
  if (const auto* value = std::get_if<double>(&argument->value)) return *value;
  const auto integer = integer_argument(op, name);
  return integer ? static_cast<double>(*integer) : otherwise;
}

/// "aten::add.Tensor" -> "aten::add".
[[nodiscard]] inline std::string_view base_name(std::string_view target) {
  const std::size_t dot = target.rfind('.');
  return dot == std::string_view::npos ? target : target.substr(0, dot);
}

/// Index of a dim that may be counted from the end.
[[nodiscard]] inline std::size_t wrap_dim(std::int64_t dim, std::size_t rank) {
  return static_cast<std::size_t>(dim < 0 ? dim + static_cast<std::int64_t>(rank) : dim);
}

}  // namespace coxswain::model
