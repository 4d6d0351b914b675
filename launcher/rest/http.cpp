#include "launcher/rest/http.h"

#include <algorithm>
#include <charconv>

namespace coxswain::launcher {
namespace {

std::optional<std::string> decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char byte = text[i];
    if (byte == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      unsigned value = 0;
      const char* first = text.data() + i + 1;
      const auto [end, code] = std::from_chars(first, first + 2, value, 16);
      if (code != std::errc{} || end != first + 2 || value == 0) return std::nullopt;
      byte = static_cast<char>(value);
      if (byte == '/' && !plus_is_space) return std::nullopt;
      i += 2;
    } else if (byte == '+' && plus_is_space) {
      byte = ' ';
    }
    decoded += byte;
  }
  return decoded;
}

/// Of "a=1&b".
std::optional<std::map<std::string, std::string>> parse_query(std::string_view text) {
  std::map<std::string, std::string> query;
  while (!text.empty()) {
    const std::string_view one = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    if (one.empty()) continue;
    const std::size_t equals = std::min(one.find('='), one.size());
    const auto name = decode(one.substr(0, equals), true);
    const auto value = decode(one.substr(std::min(one.size(), equals + 1)), true);
    if (!name || !value) return std::nullopt;
    query[*name] = *value;
  }
  return query;
}

bool has_dots(std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);  // its slash
    const std::string_view segment = path.substr(0, path.find('/'));
    if (segment == "." || segment == "..") return true;
    path.remove_prefix(segment.size());
  }
  return false;
}

}  // namespace

const std::string& HttpRequest::header(const std::string& name) const {
  static const std::string kNone;
  const auto found = headers.find(name);
  return found == headers.end() ? kNone : found->second;
}

std::optional<Target> parse_target(std::string_view target) {
  if (!target.starts_with('/')) return std::nullopt;
  // Everything else is escaped (RFC 3986).
  if (std::any_of(target.begin(), target.end(), [](char c) { return c <= ' ' || c > '~'; })) return std::nullopt;
  const std::size_t question = std::min(target.find('?'), target.size());
  const auto path = decode(target.substr(0, question), false);
  auto query = parse_query(target.substr(std::min(target.size(), question + 1)));
  if (!path || !query || has_dots(*path)) return std::nullopt;
  return Target{*path, std::move(*query)};
}

}  // namespace coxswain::launcher
