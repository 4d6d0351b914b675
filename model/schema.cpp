#include "model/schema.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>

#include "common/ensure.h"
#include "common/json.h"

namespace coxswain::model {
namespace {

// Sorted by text; one operator each (see make_schema_table.py).
constexpr std::string_view kTable[] = {
#include "aten_schemas.inc"
};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

SchemaKind parse_kind(std::string_view text, std::string_view name) {
  if (name == "pin_memory") return SchemaKind::Ignored;
  if (text == "Tensor") return SchemaKind::Tensor;
  if (text == "int") return SchemaKind::Int;
  if (text == "float") return SchemaKind::Float;
  if (text == "bool") return SchemaKind::Bool;
  if (text == "str") return SchemaKind::String;
  if (text == "number") return SchemaKind::Number;
  if (text == "ScalarType") return SchemaKind::ScalarType;
  return SchemaKind::Ignored;  // Layout, Device, MemoryFormat, Generator
}

Argument::Variant scalar_value(SchemaKind kind, const Json& json) {
  if (json.is_bool()) return json.boolean();
  if (json.is_string()) return json.string();
  if (kind == SchemaKind::Float) return json.number();
  if (json.is_integer()) return Dim(json.integer());
  return json.number();
}

Argument::Variant list_value(SchemaKind kind, const JsonArray& items) {
  if (kind == SchemaKind::Tensor) return std::vector<std::optional<ValueRef>>(items.size());
  if (kind == SchemaKind::Float || kind == SchemaKind::Number) {
    std::vector<double> values;
    for (const Json& item : items) values.push_back(item.number());
    return values;
  }
  if (kind == SchemaKind::Bool) {
    std::vector<bool> values;
    for (const Json& item : items) values.push_back(item.boolean());
    return values;
  }
  std::vector<Dim> values;
  for (const Json& item : items) values.emplace_back(item.integer());
  return values;
}

SchemaArgument parse_argument(std::string_view line) {
  const auto fields = split(line, '\t');
  COX_ENSURE(fields.size() == 3, line);
  SchemaArgument argument;
  argument.name = fields[0];
  std::string_view type = fields[1];
  if (type.ends_with('?')) {
    argument.is_optional = true;
    type.remove_suffix(1);
  }
  if (type.ends_with(']')) {
    argument.is_list = true;
    const std::size_t open = type.rfind('[');
    std::from_chars(type.data() + open + 1, type.data() + type.size() - 1, argument.list_size);
    type = type.substr(0, open);
  }
  if (type.ends_with('?')) type.remove_suffix(1);  // Tensor?[]: elements may be absent
  argument.kind = parse_kind(type, argument.name);
  argument.has_default = !fields[2].empty();
  if (argument.kind == SchemaKind::Ignored) {
    argument.default_value = Ignored{};
    argument.has_default = true;
  } else if (argument.has_default) {
    const auto json = parse_json(fields[2]);
    COX_ENSURE(json.has_value(), line);
    if (json->is_array()) {
      argument.default_value = list_value(argument.kind, json->array());
    } else if (!json->is_null()) {
      argument.default_value = scalar_value(argument.kind, *json);
    }
  }
  return argument;
}

OperatorSchema parse_schema(std::string_view text) {
  const auto lines = split(text, '\n');
  OperatorSchema schema{lines.front(), {}};
  for (std::size_t i = 1; i < lines.size(); ++i) schema.arguments.push_back(parse_argument(lines[i]));
  return schema;
}

std::string_view name_of(std::string_view text) { return text.substr(0, text.find('\n')); }

}  // namespace

const OperatorSchema* find_schema(std::string_view target) {
  // Few of the 2,000 operators are ever asked for: each is parsed when it is.
  static std::mutex mutex;
  static std::map<std::string_view, OperatorSchema> parsed;
  const std::lock_guard lock(mutex);
  if (const auto found = parsed.find(target); found != parsed.end()) return &found->second;
  // '\n' sorts before every character of a name, so texts are in the order of names.
  const auto place =
      std::lower_bound(std::begin(kTable), std::end(kTable), target,
                       [](std::string_view text, std::string_view name) { return name_of(text) < name; });
  if (place == std::end(kTable) || name_of(*place) != target) return nullptr;
  return &parsed.emplace(name_of(*place), parse_schema(*place)).first->second;
}

}  // namespace coxswain::model
