#include "launcher/job/walk.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include "proto/job.pb.h"

namespace coxswain::launcher {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Bounds that no honest job file meets; an alias bomb does, because aliases are walked as often as they are named.
constexpr int kMaxNodes = 20000;
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxBytes = 1 << 20;

template <class T>
std::optional<T> parse_number(const std::string& text) {
  T value{};
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, code] = std::from_chars(begin, text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string number_text(double value) {
  char text[32];
  const auto [end, code] = std::to_chars(text, text + sizeof text, value);
  return std::string(text, end);
}

std::string join(const std::vector<std::string>& items) {
  std::string text;
  for (const auto& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

int distance(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

class Walker {
 public:
  Walker(std::string file, Walk& walk) : file_(std::move(file)), walk_(walk) {}

  void section(const YAML::Node& node, Message& message, const std::string& path, int depth) {
    if (!count(node, path, depth)) return;
    if (!node.IsMap()) return wrong_type(node, path, "a mapping");
    const auto* descriptor = message.GetDescriptor();
    std::set<std::string> seen;
    for (const auto& entry : node) {
      const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
      const std::string here = path.empty() ? key : path + "." + key;
      const int line = entry.first.Mark().line + 1;
      walk_.lines[here] = line;
      if (!seen.insert(key).second) {
        add({ErrorCode::InvalidArgument, "key given twice", place(file_, line, here), "one value", "a second one",
             "delete one of them"});
        continue;
      }
      const auto* field = descriptor->FindFieldByName(key);
      if (field == nullptr) {
        unknown_key(*descriptor, key, line, here);
        continue;
      }
      value(entry.second, message, *field, here, line, depth + 1);
    }
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const auto* field = descriptor->field(i);
      if (!rule_of(*field).required() || seen.contains(field->name())) continue;
      const std::string here = path.empty() ? field->name() : path + "." + field->name();
      add({ErrorCode::InvalidArgument, "required key is missing", place(file_, node.Mark().line + 1, here),
           expected_of(*field), "nothing", "add `" + field->name() + ":`"});
    }
  }

 private:
  static const job::Rule& rule_of(const FieldDescriptor& field) { return field.options().GetExtension(job::rule); }

  static std::string expected_of(const FieldDescriptor& field) {
    const auto& rule = rule_of(field);
    if (!rule.forms().empty()) return rule.forms();
    if (rule.one_of_size() > 0) return "one of " + join({rule.one_of().begin(), rule.one_of().end()});
    std::string text;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT64:
      case FieldDescriptor::CPPTYPE_UINT64: text = "an integer"; break;
      case FieldDescriptor::CPPTYPE_DOUBLE: text = "a number"; break;
      case FieldDescriptor::CPPTYPE_BOOL: text = "true or false"; break;
      case FieldDescriptor::CPPTYPE_STRING: text = rule.path() ? "a path" : "a text"; break;
      default: text = "a mapping";
    }
    if (rule.positive()) text += " above 0";
    if (rule.has_min() && rule.has_max())
      text += " from " + number_text(rule.min()) + " to " + number_text(rule.max());
    else if (rule.has_min())
      text += " of at least " + number_text(rule.min());
    else if (rule.has_max())
      text += " of at most " + number_text(rule.max());
    return text;
  }

  void add(Error error) { walk_.problems.push_back(std::move(error)); }

  bool count(const YAML::Node& node, const std::string& path, int depth) {
    if (++num_nodes_ <= kMaxNodes && depth <= kMaxDepth) return true;
    if (!overflowed_)
      add({ErrorCode::InvalidArgument, "file is too large or nested too deeply",
           place(file_, node.Mark().line + 1, path),
           "at most " + std::to_string(kMaxNodes) + " values, " + std::to_string(kMaxDepth) + " levels", "more",
           "remove aliases and nesting"});
    overflowed_ = true;
    return false;
  }

  void wrong_type(const YAML::Node& node, const std::string& path, const std::string& expected) {
    std::string got = node.IsMap()        ? "a mapping"
                      : node.IsSequence() ? "a list"
                      : node.IsNull()     ? "nothing"
                                          : node.Scalar();
    add({ErrorCode::InvalidArgument, "wrong type", place(file_, node.Mark().line + 1, path), expected, got, ""});
  }

  void unknown_key(const google::protobuf::Descriptor& descriptor, const std::string& key, int line,
                   const std::string& path) {
    std::vector<std::string> known;
    std::string nearest;
    int best = 3;
    for (int i = 0; i < descriptor.field_count(); ++i) {
      known.push_back(descriptor.field(i)->name());
      if (const int d = distance(key, known.back()); d < best) best = d, nearest = known.back();
    }
    add({ErrorCode::InvalidArgument, "unknown key", place(file_, line, path), "one of " + join(known), key,
         nearest.empty() ? "delete it" : "did you mean `" + nearest + "`?"});
  }

  void value(const YAML::Node& node, Message& message, const FieldDescriptor& field, const std::string& path, int line,
             int depth) {
    const auto& rule = rule_of(field);
    if (!rule.this_version_cannot().empty()) {
      walk_.uses_missing_feature = true;
      add({ErrorCode::Unimplemented, "this version cannot " + rule.this_version_cannot(), place(file_, line, path),
           "the key left out", "a value", "delete `" + path + "`"});
      return;
    }
    if (field.is_map()) return map(node, message, field, path, depth);
    if (field.is_repeated()) {
      if (!node.IsSequence()) return wrong_type(node, path, "a list, each " + expected_of(field));
      for (std::size_t i = 0; i < node.size(); ++i)
        scalar(node[i], message, field, path + "[" + std::to_string(i) + "]", depth);
      return;
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message* child = message.GetReflection()->MutableMessage(&message, &field);
      if (auto* any = dynamic_cast<google::protobuf::Value*>(child)) return any_value(node, *any, path, depth);
      if (auto* any = dynamic_cast<google::protobuf::Struct*>(child)) {
        if (!node.IsMap()) return wrong_type(node, path, "a mapping");
        google::protobuf::Value whole;
        any_value(node, whole, path, depth);
        *any = whole.struct_value();
        return;
      }
      return section(node, *child, path, depth);
    }
    scalar(node, message, field, path, depth);
  }

  void map(const YAML::Node& node, Message& message, const FieldDescriptor& field, const std::string& path, int depth) {
    if (!node.IsMap()) return wrong_type(node, path, "a mapping of texts");
    for (const auto& entry : node) {
      if (!count(entry.second, path, depth)) return;
      const std::string here = path + "." + entry.first.Scalar();
      if (!entry.second.IsScalar()) {
        wrong_type(entry.second, here, "a text");
        continue;
      }
      Message* pair = message.GetReflection()->AddMessage(&message, &field);
      const auto* descriptor = pair->GetDescriptor();
      pair->GetReflection()->SetString(pair, descriptor->FindFieldByName("key"), entry.first.Scalar());
      pair->GetReflection()->SetString(pair, descriptor->FindFieldByName("value"), entry.second.Scalar());
    }
  }

  void any_value(const YAML::Node& node, google::protobuf::Value& value, const std::string& path, int depth) {
    if (!count(node, path, depth)) return;
    if (node.IsMap()) {
      auto& members = *value.mutable_struct_value()->mutable_fields();
      for (const auto& entry : node) {
        const std::string here = path + "." + entry.first.Scalar();
        walk_.lines[here] = entry.first.Mark().line + 1;
        any_value(entry.second, members[entry.first.Scalar()], here, depth + 1);
      }
    } else if (node.IsSequence()) {
      auto& list = *value.mutable_list_value();
      for (std::size_t i = 0; i < node.size(); ++i)
        any_value(node[i], *list.add_values(), path + "[" + std::to_string(i) + "]", depth + 1);
    } else if (node.IsNull()) {
      value.set_null_value(google::protobuf::NULL_VALUE);
    } else if (node.Tag() == "!") {
      value.set_string_value(node.Scalar());
    } else if (node.Scalar() == "true" || node.Scalar() == "false") {
      value.set_bool_value(node.Scalar() == "true");
    } else if (const auto number = parse_number<double>(node.Scalar()); number && std::isfinite(*number)) {
      value.set_number_value(*number);
    } else {
      value.set_string_value(node.Scalar());
    }
  }

  void scalar(const YAML::Node& node, Message& message, const FieldDescriptor& field, const std::string& path,
              int depth) {
    if (!count(node, path, depth)) return;
    if (!node.IsScalar()) return wrong_type(node, path, expected_of(field));
    const std::string& text = node.Scalar();
    const auto* reflection = message.GetReflection();
    const auto& rule = rule_of(field);
    const auto refuse = [&](const std::string& what) {
      add({ErrorCode::InvalidArgument, what, place(file_, node.Mark().line + 1, path), expected_of(field), text, ""});
    };
    const auto in_range = [&](double number) {
      return !(rule.positive() && number <= 0) && !(rule.has_min() && number < rule.min()) &&
             !(rule.has_max() && number > rule.max());
    };
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        if (rule.one_of_size() > 0 &&
            std::find(rule.one_of().begin(), rule.one_of().end(), text) == rule.one_of().end())
          return refuse("unknown value");
        if (std::find(rule.not_yet().begin(), rule.not_yet().end(), text) != rule.not_yet().end()) {
          walk_.uses_missing_feature = true;
          add({ErrorCode::Unimplemented, "this version cannot do `" + text + "`",
               place(file_, node.Mark().line + 1, path), expected_of(field), text, ""});
          return;
        }
        if (text.empty() || text.find('\0') != std::string::npos) return refuse("empty text");
        field.is_repeated() ? reflection->AddString(&message, &field, text)
                            : reflection->SetString(&message, &field, text);
        return;
      case FieldDescriptor::CPPTYPE_INT64: {
        const auto number = parse_number<std::int64_t>(text);
        if (!number) return refuse("wrong type");
        if (!in_range(static_cast<double>(*number))) return refuse("value out of range");
        field.is_repeated() ? reflection->AddInt64(&message, &field, *number)
                            : reflection->SetInt64(&message, &field, *number);
        return;
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        const auto number = parse_number<std::uint64_t>(text);
        if (!number) return refuse("wrong type");
        field.is_repeated() ? reflection->AddUInt64(&message, &field, *number)
                            : reflection->SetUInt64(&message, &field, *number);
        return;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        const auto number = parse_number<double>(text);
        if (!number) return refuse("wrong type");
        if (!std::isfinite(*number) || !in_range(*number)) return refuse("value out of range");
        field.is_repeated() ? reflection->AddDouble(&message, &field, *number)
                            : reflection->SetDouble(&message, &field, *number);
        return;
      }
      case FieldDescriptor::CPPTYPE_BOOL:
        if (text != "true" && text != "false") return refuse("wrong type");
        reflection->SetBool(&message, &field, text == "true");
        return;
      default: refuse("wrong type");
    }
  }

  std::string file_;
  Walk& walk_;
  int num_nodes_ = 0;
  bool overflowed_ = false;
};

}  // namespace

std::string place(const std::string& file, int line, const std::string& path) {
  std::string text = file + ":" + std::to_string(line);
  return path.empty() ? text : text + "  " + path;
}

Walk walk_yaml(const std::string& text, const std::string& file, Message& message) {
  Walk walk;
  if (text.size() > kMaxBytes) {
    walk.problems.push_back({ErrorCode::InvalidArgument, "file is too large", file, "at most 1 MiB",
                             std::to_string(text.size()) + " bytes", ""});
    return walk;
  }
  try {
    const YAML::Node root = YAML::Load(text);
    Walker(file, walk).section(root, message, "", 0);
  } catch (const YAML::Exception& e) {
    walk.problems.push_back({ErrorCode::InvalidArgument, "not valid YAML: " + e.msg, place(file, e.mark.line + 1, ""),
                             "YAML or JSON", "", ""});
  }
  return walk;
}

}  // namespace coxswain::launcher
