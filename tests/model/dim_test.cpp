// Expected values: by hand and Python's integer arithmetic.
#include "model/dim.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {
Dim dim(const char* text) {
  auto parsed = parse_dim(text);
  REQUIRE(parsed.has_value());
  return *parsed;
}
}  // namespace

TEST_CASE("sums and products come out in one canonical order", "[dim]") {
  CHECK(dim("1 + batch*2*heads").to_text() == "2*batch*heads + 1");
  CHECK(dim("heads*batch*2 + 1").to_text() == "2*batch*heads + 1");
  CHECK(dim("s0 - s0").to_text() == "0");
  CHECK(dim("(s0 + 1)*(s0 - 1)").to_text() == "s0*s0 - 1");
  CHECK(dim("s0**2 - 3*s1").to_text() == "s0*s0 - 3*s1");
  CHECK(dim("-s0").to_text() == "-s0");
}

TEST_CASE("both spellings of sympy read alike", "[dim]") {
  CHECK(dim("Mul(Integer(6), Symbol('s13', positive=True, integer=True))") == dim("6*s13"));
  CHECK(dim("Add(Integer(-1), Pow(Symbol('s0'), Integer(2)))") == dim("s0**2 - 1"));
  CHECK(dim("FloorDiv(Symbol('s0', integer=True), Integer(2))") == dim("(s0//2)"));
  CHECK(dim("Mod(s0, 4)") == dim("s0 % 4"));
  CHECK(dim("Max(1, s0)").to_text() == "max(1, s0)");
}

TEST_CASE("text is read back as the same dim", "[dim]") {
  for (const char* text : {"0", "7", "-3", "batch", "2*batch*heads + 1", "floordiv(s0 + 1, 2)", "mod(s0, 4)*s1 - 2",
                           "max(1, min(s0, 3*s1))"}) {
    CHECK(dim(text).to_text() == text);
  }
}

TEST_CASE("division is exact where every term holds the divisor", "[dim]") {
  CHECK(dim("(8*batch)//batch").to_text() == "8");
  CHECK(dim("(8*batch + 4)//4").to_text() == "2*batch + 1");
  CHECK(dim("Mod(8*batch, 4)").to_text() == "0");
  CHECK(dim("(8*batch + 1)//4").to_text() == "floordiv(8*batch + 1, 4)");
}

TEST_CASE("evaluation follows Python for negative numbers", "[dim]") {
  const Bindings bindings{{"a", -7}, {"b", 2}};
  CHECK(dim("a//b").evaluate(bindings) == -4);
  CHECK(dim("a % b").evaluate(bindings) == 1);
  CHECK(dim("Max(a, b)*3 + Min(a, b)").evaluate(bindings) == -1);
  CHECK(dim("a*a*b - 100").evaluate(bindings) == -2);
}

TEST_CASE("substitution reaches into operations", "[dim]") {
  CHECK(dim("Max(s0, 3)*s0").substitute("s0", Dim(5)).to_text() == "25");
  CHECK(dim("(s0 + 1)//2").substitute("s0", dim("2*batch + 1")).to_text() == "batch + 1");
  CHECK(dim("Mod(s1, s0) + s0").symbols() == std::vector<std::string>{"s0", "s1"});
}

TEST_CASE("text that is no integer expression is an error that shows it", "[dim]") {
  for (const char* text : {"", "s0 +", "(s0", "s0)", "1/2", "s0**-1", "s0**s1", "Floor(s0)", "s0 // 0", "Mod(s0, 0)",
                           "99999999999999999999", "Symbol(s0)", "Max()", "2 3"}) {
    const auto parsed = parse_dim(text);
    REQUIRE_FALSE(parsed.has_value());
    CHECK(parsed.error().code == ErrorCode::InvalidArgument);
  }
  CHECK_FALSE(parse_dim(std::string(10000, '(')).has_value());
  CHECK_FALSE(parse_dim(std::string(10000, '-') + "1").has_value());
}
