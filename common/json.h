#pragma once
// A JSON document as a value, and its canonical text: sorted keys, shortest round-trip numbers, so that
// equal values give equal bytes. nlohmann parses inside json.cpp and stays out of headers.
// Called by every codec (plan, cluster, profile, metrics). Threads: pure values. Source: DESIGN 3.3.
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/result.h"

namespace coxswain {

class Json;
using JsonArray = std::vector<Json>;
using JsonObject = std::map<std::string, Json>;

class Json {
 public:
  using Value = std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, JsonArray, JsonObject>;

  Json() : value_(nullptr) {}
  Json(std::nullptr_t) : value_(nullptr) {}
  Json(bool v) : value_(v) {}
  Json(int v) : value_(static_cast<std::int64_t>(v)) {}
  Json(std::int64_t v) : value_(v) {}
  Json(std::uint64_t v) : value_(static_cast<std::int64_t>(v)) {}
  Json(double v) : value_(v) {}
  Json(const char* v) : value_(std::string(v)) {}
  Json(std::string v) : value_(std::move(v)) {}
  Json(std::string_view v) : value_(std::string(v)) {}
  Json(JsonArray v) : value_(std::move(v)) {}
  Json(JsonObject v) : value_(std::move(v)) {}

  [[nodiscard]] const Value& value() const { return value_; }
  [[nodiscard]] bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  [[nodiscard]] bool is_object() const { return std::holds_alternative<JsonObject>(value_); }
  [[nodiscard]] bool is_array() const { return std::holds_alternative<JsonArray>(value_); }
  [[nodiscard]] bool is_string() const { return std::holds_alternative<std::string>(value_); }
  [[nodiscard]] bool is_bool() const { return std::holds_alternative<bool>(value_); }
  [[nodiscard]] bool is_integer() const { return std::holds_alternative<std::int64_t>(value_); }
  /// An integer or a float.
  [[nodiscard]] bool is_number() const { return is_integer() || std::holds_alternative<double>(value_); }

  /// The following require that kind (COX_ENSURE). `number()` also takes an integer.
  [[nodiscard]] const JsonObject& object() const;
  [[nodiscard]] JsonObject& object();
  [[nodiscard]] const JsonArray& array() const;
  [[nodiscard]] JsonArray& array();
  [[nodiscard]] const std::string& string() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::int64_t integer() const;
  [[nodiscard]] double number() const;

  /// The member `key`, or null (a shared one) when this is no object or has no such member.
  [[nodiscard]] const Json& operator[](std::string_view key) const;
  /// Makes this an object when null; inserts.
  Json& operator[](const std::string& key);

  friend bool operator==(const Json&, const Json&) = default;

 private:
  Value value_;
};

/// Errors: InvalidArgument with byte position; nesting deeper than 200 is refused.
[[nodiscard]] Result<Json> parse_json(std::string_view text);

/// Canonical text. `indent` 0 = one line without spaces; 2 = people's form (arrays of scalars stay on one line).
/// Requires: no NaN or infinity.
[[nodiscard]] std::string to_text(const Json& json, int indent = 0);

/// Reads members strictly and collects every problem with its path; then `finish` tells.
/// Use: JsonReader r(json, "plan"); auto n = r.integer("count", 1, 100); ... COX_TRY_VOID(r.finish());
class JsonReader {
 public:
  JsonReader(const Json& json, std::string path);
  std::int64_t integer(const std::string& key, std::int64_t min, std::int64_t max);
  double number(const std::string& key);
  bool boolean(const std::string& key);
  std::string string(const std::string& key);
  const Json& object(const std::string& key);
  const JsonArray& array(const std::string& key);
  /// Like the above for members that may be absent: true when present (not null).
  [[nodiscard]] bool has(const std::string& key) const;
  /// Marks `key` as known without reading it.
  const Json& any(const std::string& key);
  void problem(Error error);  // its path is prefixed with this reader's
  [[nodiscard]] const std::string& path() const { return path_; }
  /// All problems, unknown members included.
  [[nodiscard]] std::vector<Error> take_problems();
  /// take_problems combined into one InvalidArgument, if any.
  [[nodiscard]] Result<void> finish();

 private:
  const Json* member(const std::string& key, const char* expected);
  const Json& json_;
  std::string path_;
  std::vector<std::string> known_;
  std::vector<Error> problems_;
};

}  // namespace coxswain
