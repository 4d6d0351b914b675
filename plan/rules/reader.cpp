#include "plan/rules/reader.h"

#include <algorithm>

namespace coxswain::plan {

using model::Argument;
using model::ValueRef;

OpReader::OpReader(const model::ModelGraph& graph, const model::Op& op, std::int64_t samples)
    : graph_(graph), op_(op), bindings_{{graph.batch_symbol, samples}} {
  for (std::size_t i = 0; i < op.arguments.size(); ++i) {
    const int position = static_cast<int>(i);
    if (const auto* one = std::get_if<ValueRef>(&op.arguments[i].value)) add(inputs_, position, -1, one->id);
    if (const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(&op.arguments[i].value))
      for (std::size_t e = 0; e < list->size(); ++e)
        if ((*list)[e]) add(inputs_, position, static_cast<int>(e), (*list)[e]->id);
  }
  for (std::size_t i = 0; i < op.outputs.size(); ++i)
    if (op.outputs[i] >= 0) add(outputs_, static_cast<int>(i), -1, op.outputs[i]);
}

std::int64_t OpReader::evaluate(const model::Dim& dim) const {
  return dim.is_constant() ? dim.constant() : dim.evaluate(bindings_);
}

void OpReader::add(std::vector<Tensor>& list, int argument, int element, model::ValueId value) const {
  Tensor tensor{argument, element, value, {}};
  for (const model::Dim& dim : graph_.values[static_cast<std::size_t>(value)].dims)
    tensor.sizes.push_back(evaluate(dim));
  list.push_back(std::move(tensor));
}

bool OpReader::is_overload(std::string_view overload) const {
  const std::size_t dot = op_.target.rfind('.');
  return (dot == std::string::npos ? std::string_view() : std::string_view(op_.target).substr(dot + 1)) == overload;
}

int OpReader::position(std::string_view name) const {
  const auto found =
      std::find_if(op_.arguments.begin(), op_.arguments.end(), [&](const Argument& a) { return a.name == name; });
  return found == op_.arguments.end() ? -1 : static_cast<int>(found - op_.arguments.begin());
}

const Argument::Variant* OpReader::find(std::string_view name) const {
  const int at = position(name);
  return at < 0 ? nullptr : &op_.arguments[static_cast<std::size_t>(at)].value;
}

int OpReader::input(std::string_view name) const {
  const int at = position(name);
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (at >= 0 && inputs_[i].argument == at) return static_cast<int>(i);
  return -1;
}

std::vector<int> OpReader::input_list(std::string_view name) const {
  const int first = input(name);
  const auto* value = find(name);
  if (value == nullptr) return {};
  const auto* list = std::get_if<std::vector<std::optional<ValueRef>>>(value);
  if (list == nullptr) return first < 0 ? std::vector<int>{} : std::vector<int>{first};
  std::vector<int> numbers;
  int next = first;
  for (const auto& element : *list) numbers.push_back(element ? next++ : -1);
  return numbers;
}

bool OpReader::is_floating(const Tensor& tensor) const {
  return is_floating_point(graph_.values[static_cast<std::size_t>(tensor.value)].dtype);
}

std::optional<std::int64_t> OpReader::integer(std::string_view name) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto* dim = std::get_if<model::Dim>(value);
  return dim == nullptr ? std::nullopt : std::optional<std::int64_t>(evaluate(*dim));
}

std::optional<Sizes> OpReader::integers(std::string_view name) const {
  const auto* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (const auto* dim = std::get_if<model::Dim>(value)) return Sizes{evaluate(*dim)};
  const auto* dims = std::get_if<std::vector<model::Dim>>(value);
  if (dims == nullptr) return std::nullopt;
  Sizes sizes;
  for (const model::Dim& dim : *dims) sizes.push_back(evaluate(dim));
  return sizes;
}

bool OpReader::flag(std::string_view name, bool otherwise) const {
  const auto* value = find(name);
  const auto* flag = value == nullptr ? nullptr : std::get_if<bool>(value);
  return flag == nullptr ? otherwise : *flag;
}

std::optional<std::string_view> OpReader::text(std::string_view name) const {
  const auto* value = find(name);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? std::nullopt : std::optional<std::string_view>(*text);
}

bool OpReader::is_none(std::string_view name) const {
  const auto* value = find(name);
  return value == nullptr || std::holds_alternative<model::None>(*value);
}

}  // namespace coxswain::plan
