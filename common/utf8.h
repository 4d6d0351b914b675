#pragma once
// Is a text UTF-8? Called where text comes from outside. Threads: pure. Source: RFC 3629, section 4.
#include <cstddef>
#include <string_view>

namespace coxswain {

/// Length of the character at the front of `text`; 0 where it is none. Requires: not empty.
[[nodiscard]] std::size_t utf8_length(std::string_view text);
/// Bytes at the front of `text` that are whole characters: all of them where it is UTF-8.
[[nodiscard]] std::size_t count_utf8_bytes(std::string_view text);

}  // namespace coxswain
