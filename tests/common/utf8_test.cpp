#include "common/utf8.h"

#include <catch2/catch.hpp>

using namespace coxswain;

TEST_CASE("characters of one to four bytes are whole, their parts are not", "[utf8]") {
  for (const char* text : {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    const std::string_view whole(text);
    CHECK(utf8_length(whole) == whole.size());
    for (std::size_t size = 1; size < whole.size(); ++size) CHECK(utf8_length(whole.substr(0, size)) == 0);
  }
}

TEST_CASE("what RFC 3629 forbids is no character", "[utf8]") {
  // Stray, overlong, a surrogate, beyond U+10FFFF.
  for (const char* text : {"\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"})
    CHECK(utf8_length(text) == 0);
  CHECK(count_utf8_bytes("a\xc3\xa4\xff"
                         "b") == 3);
  CHECK(count_utf8_bytes("") == 0);
}
