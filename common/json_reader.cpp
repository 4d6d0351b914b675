#include <algorithm>

#include "common/json.h"

namespace coxswain {
namespace {

/// What stands there, short enough for a line of an error.
std::string describe(const Json& json) {
  constexpr std::size_t kMaxLength = 60;
  if (json.is_object()) return "an object";
  if (json.is_array()) return "an array";
  const std::string text = to_text(json);
  return text.size() <= kMaxLength ? text : text.substr(0, kMaxLength) + "...";
}

Error wrong_value(const std::string& key, const std::string& expected, const Json& json) {
  return Error{ErrorCode::InvalidArgument, "wrong value", key, expected, describe(json), ""};
}

const Json& empty_object() {
  static const Json kObject{JsonObject{}};
  return kObject;
}

}  // namespace

JsonReader::JsonReader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
  if (!json_.is_object()) problem(wrong_value("", "an object", json_));
}

const Json* JsonReader::member(const std::string& key, const char* expected) {
  const Json& found = any(key);
  if (!found.is_null()) return &found;
  // What is no object was reported once, by the constructor; its members need no line each.
  if (json_.is_object()) problem(Error{ErrorCode::InvalidArgument, "missing member", key, expected, "nothing", ""});
  return nullptr;
}

std::int64_t JsonReader::integer(const std::string& key, std::int64_t min, std::int64_t max) {
  const std::string expected = "an integer from " + std::to_string(min) + " to " + std::to_string(max);
  const Json* found = member(key, expected.c_str());
  if (found == nullptr) return min;
  if (!found->is_integer() || found->integer() < min || found->integer() > max) {
    problem(wrong_value(key, expected, *found));
    return min;
  }
  return found->integer();
}

double JsonReader::number(const std::string& key) {
  const Json* found = member(key, "a number");
  if (found == nullptr) return 0.0;
  if (!found->is_number()) {
    problem(wrong_value(key, "a number", *found));
    return 0.0;
  }
  return found->number();
}

bool JsonReader::boolean(const std::string& key) {
  const Json* found = member(key, "true or false");
  if (found == nullptr) return false;
  if (!found->is_bool()) {
    problem(wrong_value(key, "true or false", *found));
    return false;
  }
  return found->boolean();
}

std::string JsonReader::string(const std::string& key) {
  const Json* found = member(key, "a string");
  if (found == nullptr) return {};
  if (!found->is_string()) {
    problem(wrong_value(key, "a string", *found));
    return {};
  }
  return found->string();
}

const Json& JsonReader::object(const std::string& key) {
  const Json* found = member(key, "an object");
  if (found == nullptr) return empty_object();
  if (!found->is_object()) {
    problem(wrong_value(key, "an object", *found));
    return empty_object();
  }
  return *found;
}

const JsonArray& JsonReader::array(const std::string& key) {
  static const JsonArray kEmpty;
  const Json* found = member(key, "an array");
  if (found == nullptr) return kEmpty;
  if (!found->is_array()) {
    problem(wrong_value(key, "an array", *found));
    return kEmpty;
  }
  return found->array();
}

bool JsonReader::has(const std::string& key) const { return !json_[std::string_view(key)].is_null(); }

const Json& JsonReader::any(const std::string& key) {
  known_.push_back(key);
  return json_[std::string_view(key)];
}

void JsonReader::problem(Error error) { problems_.push_back(with_path_prefix(std::move(error), path_)); }

std::vector<Error> JsonReader::take_problems() {
  if (json_.is_object()) {
    std::sort(known_.begin(), known_.end());
    known_.erase(std::unique(known_.begin(), known_.end()), known_.end());
    std::string valid;
    for (const std::string& key : known_) valid += (valid.empty() ? "" : ", ") + key;
    for (const auto& [key, value] : json_.object()) {
      if (std::binary_search(known_.begin(), known_.end(), key)) continue;
      problem(Error{ErrorCode::InvalidArgument, "unknown member", key, valid, describe(value), ""});
    }
  }
  return std::exchange(problems_, {});
}

Result<void> JsonReader::finish() {
  std::vector<Error> problems = take_problems();
  if (problems.empty()) return {};
  const std::string message =
      std::to_string(problems.size()) + " problems in " + (path_.empty() ? "the document" : path_);
  return combine_errors(ErrorCode::InvalidArgument, message, std::move(problems));
}

}  // namespace coxswain
