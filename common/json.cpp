#include "common/json.h"

#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/ensure.h"
#include "common/utf8.h"

namespace coxswain {
namespace {

constexpr std::size_t kMaxDepth = 200;

/// Builds our value from nlohmann's events. Its parser does not recurse, so depth is ours to bound.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return add(Json(nullptr)); }
  bool boolean(bool value) override { return add(Json(value)); }
  bool number_integer(number_integer_t value) override { return add(Json(static_cast<std::int64_t>(value))); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) {
      return fail("integer does not fit in 64 bits", std::to_string(value));
    }
    return add(Json(static_cast<std::int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    // A long run of digits arrives here too; as a float it would lose some without a word.
    if (text.find_first_of(".eE") == string_t::npos) return fail("integer does not fit in 64 bits", text);
    return add(Json(value));
  }
  bool string(string_t& value) override { return add(Json(std::move(value))); }
  bool binary(binary_t&) override { return fail("binary value", ""); }

  bool start_object(std::size_t) override { return open(Json(JsonObject{})); }
  bool key(string_t& value) override {
    if (stack_.back().object().contains(value)) return fail("member occurs twice", value);
    keys_.back() = value;
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json(JsonArray{})); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    // nlohmann's text repeats its own id and position in front of what went wrong.
    std::string reason = e.what();
    if (const auto colon = reason.find(": "); colon != std::string::npos) reason = reason.substr(colon + 2);
    error_ = Error{ErrorCode::InvalidArgument, "text is not JSON", "byte " + std::to_string(position), "", reason, ""};
    return false;
  }

  [[nodiscard]] Error error() const { return error_; }
  [[nodiscard]] Json take() { return std::move(root_); }

 private:
  bool fail(std::string message, std::string got) {
    std::string path;
    for (std::size_t i = 0; i < stack_.size(); ++i) {
      if (stack_[i].is_array()) {
        path += "[" + std::to_string(stack_[i].array().size()) + "]";
      } else {
        path += (path.empty() ? "" : ".") + keys_[i];
      }
    }
    error_ = Error{ErrorCode::InvalidArgument, std::move(message), std::move(path), "", std::move(got), ""};
    return false;
  }

  bool add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (stack_.back().is_array()) {
      stack_.back().array().push_back(std::move(value));
    } else {
      stack_.back().object().emplace(keys_.back(), std::move(value));
    }
    return true;
  }

  bool open(Json value) {
    if (stack_.size() == kMaxDepth) {
      error_ = Error{ErrorCode::InvalidArgument,
                     "JSON is nested too deeply",
                     "",
                     "at most " + std::to_string(kMaxDepth) + " levels",
                     "more",
                     ""};
      return false;
    }
    stack_.push_back(std::move(value));
    keys_.emplace_back();
    return true;
  }

  bool close() {
    Json value = std::move(stack_.back());
    stack_.pop_back();
    keys_.pop_back();
    return add(std::move(value));
  }

  std::vector<Json> stack_;
  std::vector<std::string> keys_;
  Json root_;
  Error error_{ErrorCode::InvalidArgument, "text is not JSON", "", "", "", ""};
};

void append_string(std::string& out, std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\\ufffd";  // a stray byte of a foreign message must not spoil the document
    } else if (length > 1) {
      out += text.substr(0, length);
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kDigits[static_cast<unsigned char>(c) >> 4];
      out += kDigits[static_cast<unsigned char>(c) & 15];
    } else {
      out += c;
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
}

void append_double(std::string& out, double value) {
  COX_ENSURE(std::isfinite(value), value);
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  const std::string_view text(digits.data(), static_cast<std::size_t>(end - digits.data()));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // a float stays a float
}

bool is_scalar(const Json& json) { return !json.is_array() && !json.is_object(); }

/// `indent` 0 = one line. `level` is the depth of the line that the value starts on.
class Writer {
 public:
  explicit Writer(int indent) : indent_(indent) {}

  void write(const Json& json, int level) {
    std::visit([&](const auto& value) { write_value(value, level); }, json.value());
  }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  void write_value(std::nullptr_t, int) { out_ += "null"; }
  void write_value(bool value, int) { out_ += value ? "true" : "false"; }
  void write_value(std::int64_t value, int) { out_ += std::to_string(value); }
  void write_value(double value, int) { append_double(out_, value); }
  void write_value(const std::string& value, int) { append_string(out_, value); }

  void write_value(const JsonArray& array, int level) {
    bool on_one_line = true;
    for (const Json& element : array) on_one_line = on_one_line && is_scalar(element);
    out_ += '[';
    for (std::size_t i = 0; i < array.size(); ++i) {
      if (i > 0) out_ += indent_ > 0 && on_one_line ? ", " : ",";
      if (!on_one_line) new_line(level + 1);
      write(array[i], level + 1);
    }
    if (!on_one_line) new_line(level);
    out_ += ']';
  }

  void write_value(const JsonObject& object, int level) {
    out_ += '{';
    bool first = true;
    for (const auto& [key, value] : object) {
      if (!first) out_ += ',';
      first = false;
      new_line(level + 1);
      append_string(out_, key);
      out_ += indent_ > 0 ? ": " : ":";
      write(value, level + 1);
    }
    if (!object.empty()) new_line(level);
    out_ += '}';
  }

  void new_line(int level) {
    if (indent_ == 0) return;
    out_ += '\n';
    out_.append(static_cast<std::size_t>(level) * static_cast<std::size_t>(indent_), ' ');
  }

  int indent_;
  std::string out_;
};

}  // namespace

const JsonObject& Json::object() const {
  COX_ENSURE(is_object());
  return std::get<JsonObject>(value_);
}

JsonObject& Json::object() {
  COX_ENSURE(is_object());
  return std::get<JsonObject>(value_);
}

const JsonArray& Json::array() const {
  COX_ENSURE(is_array());
  return std::get<JsonArray>(value_);
}

JsonArray& Json::array() {
  COX_ENSURE(is_array());
  return std::get<JsonArray>(value_);
}

const std::string& Json::string() const {
  COX_ENSURE(is_string());
  return std::get<std::string>(value_);
}

bool Json::boolean() const {
  COX_ENSURE(is_bool());
  return std::get<bool>(value_);
}

std::int64_t Json::integer() const {
  COX_ENSURE(is_integer());
  return std::get<std::int64_t>(value_);
}

double Json::number() const {
  COX_ENSURE(is_number());
  return is_integer() ? static_cast<double>(std::get<std::int64_t>(value_)) : std::get<double>(value_);
}

const Json& Json::operator[](std::string_view key) const {
  static const Json kNull;
  if (!is_object()) return kNull;
  const JsonObject& members = std::get<JsonObject>(value_);
  const auto found = members.find(std::string(key));
  return found == members.end() ? kNull : found->second;
}

Json& Json::operator[](const std::string& key) {
  if (is_null()) value_ = JsonObject{};
  return object()[key];
}

Result<Json> parse_json(std::string_view text) {
  return guard("common", [&]() -> Result<Json> {
    Builder builder;
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return builder.error();
    return builder.take();
  });
}

std::string to_text(const Json& json, int indent) {
  Writer writer(indent);
  writer.write(json, 0);
  return writer.take();
}

}  // namespace coxswain
