#include "common/json.h"

#include <cmath>
#include <cstring>
#include <limits>

#include <rapidcheck.h>

#include "common/ensure.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

std::string canonical(std::string_view text) { return to_text(parse_json(text).value()); }

TEST_CASE("canonical text has sorted members and no blanks") {
  CHECK(canonical(R"({ "b" : [1, 2.5 , "x"], "a": {"z": null, "y": true} })") ==
        R"({"a":{"y":true,"z":null},"b":[1,2.5,"x"]})");
}

TEST_CASE("people's form indents, with arrays of scalars on one line") {
  const Json json = parse_json(R"({"a":[1,2],"b":[{"c":1},{}],"d":[],"e":{}})").value();
  CHECK(to_text(json, 2) ==
        "{\n"
        "  \"a\": [1, 2],\n"
        "  \"b\": [\n"
        "    {\n"
        "      \"c\": 1\n"
        "    },\n"
        "    {}\n"
        "  ],\n"
        "  \"d\": [],\n"
        "  \"e\": {}\n"
        "}");
}

TEST_CASE("a float stays a float and an integer an integer") {
  CHECK(to_text(Json(1.0)) == "1.0");
  CHECK(to_text(Json(1)) == "1");
  CHECK(canonical("1.0") == "1.0");
  CHECK(canonical("-0.0") == "-0.0");
  CHECK(canonical("100") == "100");
  CHECK(parse_json("1.0").value().is_integer() == false);
  CHECK(parse_json("1").value().is_integer());
}

TEST_CASE("floats are the shortest text that reads back") {
  CHECK(to_text(Json(0.1)) == "0.1");
  CHECK(to_text(Json(1.0 / 3.0)) == "0.3333333333333333");
  CHECK(to_text(Json(5e-324)) == "5e-324");
  CHECK(to_text(Json(1e300)) == "1e+300");
}

TEST_CASE("integers keep all 64 bits") {
  CHECK(canonical("9223372036854775807") == "9223372036854775807");
  CHECK(canonical("-9223372036854775808") == "-9223372036854775808");
}

TEST_CASE("an integer beyond 64 bits is refused, not rounded") {
  const auto a = parse_json(R"({"rows":[1,{"n":9223372036854775808}]})");
  REQUIRE_FALSE(a.has_value());
  CHECK(a.error().path == "rows[1].n");
  CHECK(a.error().message == "integer does not fit in 64 bits");
  CHECK_FALSE(parse_json("123456789012345678901234567890").has_value());
}

TEST_CASE("not a number and infinity have no text") {
  CHECK_THROWS_AS(to_text(Json(std::nan(""))), EnsureFailure);
  CHECK_THROWS_AS(to_text(Json(std::numeric_limits<double>::infinity())), EnsureFailure);
}

TEST_CASE("strings escape what JSON must and keep UTF-8") {
  CHECK(to_text(Json("a\"b\\c\n\t\r\x01\x1f/")) == "\"a\\\"b\\\\c\\n\\t\\r\\u0001\\u001f/\"");
  CHECK(to_text(Json("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")) == "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
}

TEST_CASE("bytes that are not UTF-8 become replacement characters") {
  CHECK(to_text(Json("a\xff"
                     "b")) == "\"a\\ufffdb\"");
  CHECK(to_text(Json("\xc0\xaf")) == "\"\\ufffd\\ufffd\"");             // overlong
  CHECK(to_text(Json("\xed\xa0\x80")) == "\"\\ufffd\\ufffd\\ufffd\"");  // surrogate
  CHECK(to_text(Json("\xe2\x82")) == "\"\\ufffd\\ufffd\"");             // cut short
  CHECK(parse_json(to_text(Json("\xf4\x90\x80\x80"))).has_value());     // beyond U+10FFFF
}

TEST_CASE("text that is not JSON is refused with its position") {
  for (const char* text : {"", "{", "[1,]", "{\"a\":}", "nul", "1 2", "\"\xff\"", "{a:1}", "1e999"}) {
    INFO(text);
    const auto parsed = parse_json(text);
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().code == ErrorCode::InvalidArgument);
    CHECK(parsed.error().path.rfind("byte ", 0) == 0);
  }
}

TEST_CASE("a member that occurs twice is refused") {
  const auto parsed = parse_json(R"({"a":{"b":1,"b":2}})");
  REQUIRE_FALSE(parsed.has_value());
  CHECK(parsed.error().message == "member occurs twice");
  CHECK(parsed.error().got == "b");
}

TEST_CASE("nesting is read to 200 levels and refused beyond") {
  const auto nested = [](int levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  CHECK(parse_json(nested(200)).has_value());
  CHECK_FALSE(parse_json(nested(201)).has_value());
  CHECK_FALSE(parse_json(std::string(1000000, '[')).has_value());
}

TEST_CASE("members are read without a copy and made when written") {
  Json json;
  json["a"]["b"] = 3;
  CHECK(to_text(json) == R"({"a":{"b":3}})");
  const Json& read = json;
  CHECK(read["a"]["b"].integer() == 3);
  CHECK(read["a"]["b"].number() == 3.0);
  CHECK(read["missing"]["deeper"].is_null());
  CHECK_THROWS_AS(read["a"].integer(), EnsureFailure);
}

rc::Gen<std::string> any_string() {
  // Code points below U+0800, so that the property needs no encoder for the longer forms (tested above).
  return rc::gen::map(rc::gen::container<std::vector<int>>(rc::gen::inRange(1, 0x800)),
                      [](const std::vector<int>& points) {
                        std::string text;
                        for (int point : points) {
                          if (point < 0x80) {
                            text += static_cast<char>(point);
                          } else {
                            text += static_cast<char>(0xC0 | (point >> 6));
                            text += static_cast<char>(0x80 | (point & 0x3F));
                          }
                        }
                        return text;
                      });
}

rc::Gen<double> any_finite_double() {
  return rc::gen::map(rc::gen::arbitrary<std::uint64_t>(), [](std::uint64_t bits) {
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return std::isfinite(value) ? value : 0.5;
  });
}

Json random_json(int depth) {
  switch (*rc::gen::inRange(0, depth > 0 ? 7 : 5)) {
    case 0: return Json(nullptr);
    case 1: return Json(*rc::gen::arbitrary<bool>());
    case 2: return Json(*rc::gen::arbitrary<std::int64_t>());
    case 3: return Json(*any_finite_double());
    case 4: return Json(*any_string());
    case 5: {
      JsonArray array;
      for (int n = *rc::gen::inRange(0, 5); n > 0; --n) array.push_back(random_json(depth - 1));
      return Json(std::move(array));
    }
    default: {
      JsonObject object;
      for (int n = *rc::gen::inRange(0, 5); n > 0; --n) object[*any_string()] = random_json(depth - 1);
      return Json(std::move(object));
    }
  }
}

TEST_CASE("parse(print(x)) == x, in both forms, and printing again gives the same bytes") {
  CHECK(rc::check("round trip", [] {
    const Json json = random_json(3);
    for (int indent : {0, 2}) {
      const std::string text = to_text(json, indent);
      const Json again = parse_json(text).value();
      RC_ASSERT(again == json);
      RC_ASSERT(to_text(again, indent) == text);
    }
  }));
}

}  // namespace
}  // namespace coxswain
