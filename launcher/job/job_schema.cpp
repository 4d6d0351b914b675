#include "launcher/job/job_schema.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "proto/job.pb.h"

namespace coxswain::launcher {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

const job::Rule& rule_of(const FieldDescriptor& field) { return field.options().GetExtension(job::rule); }

Json number_of(const FieldDescriptor& field) {
  const job::Rule& rule = rule_of(field);
  const bool whole = field.cpp_type() != FieldDescriptor::CPPTYPE_DOUBLE;
  JsonObject schema{{"type", whole ? "integer" : "number"}};
  const auto bound = [&](const char* name, double value) {
    schema[name] = whole ? Json(static_cast<std::int64_t>(value)) : Json(value);
  };
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) bound("minimum", 0);
  if (rule.has_min()) bound("minimum", rule.min());
  if (rule.has_max()) bound("maximum", rule.max());
  if (rule.positive()) bound("exclusiveMinimum", 0);
  return schema;
}

Json text_of(const FieldDescriptor& field) {
  const job::Rule& rule = rule_of(field);
  JsonObject schema{{"type", "string"}};
  if (rule.path()) schema["description"] = "a path";
  JsonArray words;
  for (const std::string& word : rule.one_of())
    if (std::find(rule.not_yet().begin(), rule.not_yet().end(), word) == rule.not_yet().end()) words.push_back(word);
  if (words.empty())
    schema["minLength"] = 1;
  else
    schema["enum"] = std::move(words);
  return schema;
}

Json section_of(const Descriptor& section);

Json one_of(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT64:
    case FieldDescriptor::CPPTYPE_DOUBLE: return number_of(field);
    case FieldDescriptor::CPPTYPE_BOOL: return JsonObject{{"type", "boolean"}};
    case FieldDescriptor::CPPTYPE_STRING: return text_of(field);
    default: break;
  }
  const std::string& type = field.message_type()->full_name();
  if (type == "google.protobuf.Value") return JsonObject{{"description", rule_of(field).forms()}};
  if (type == "google.protobuf.Struct") return JsonObject{{"type", "object"}};
  return section_of(*field.message_type());
}

Json value_of(const FieldDescriptor& field) {
  if (field.is_map()) return JsonObject{{"type", "object"}, {"additionalProperties", JsonObject{{"type", "string"}}}};
  if (field.is_repeated()) return JsonObject{{"type", "array"}, {"items", one_of(field)}};
  return one_of(field);
}

Json section_of(const Descriptor& section) {
  JsonObject properties;
  JsonArray required;
  for (int i = 0; i < section.field_count(); ++i) {
    const FieldDescriptor& field = *section.field(i);
    if (!rule_of(field).this_version_cannot().empty()) continue;
    properties[field.name()] = value_of(field);
    if (rule_of(field).required()) required.push_back(field.name());
  }
  JsonObject schema{{"type", "object"}, {"properties", std::move(properties)}, {"additionalProperties", false}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

}  // namespace

Json job_schema() { return section_of(*job::Job::descriptor()); }

}  // namespace coxswain::launcher
