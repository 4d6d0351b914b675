#include "plan/rules/notation.h"

#include <catch2/catch.hpp>

using namespace coxswain::plan;

TEST_CASE("a rule's text is read") {
  const Notation rule = parse_notation(
      "[b.. i]~, [o i]? -> [b.. o], []; sum i, j; max m; whole w; scaled r; masked v by index; offset n; add bias; "
      "linear a+b, c");
  REQUIRE(rule.inputs.size() == 2);
  CHECK(rule.inputs[0].leading_may_miss);
  CHECK(rule.inputs[0].tokens[0].group);
  CHECK(rule.inputs[0].tokens[0].name == "b");
  CHECK(rule.inputs[1].tokens[1].name == "i");
  REQUIRE(rule.outputs.size() == 2);
  CHECK(rule.outputs[1].tokens.empty());
  CHECK(rule.factors.at("j").kind == FactorKind::Sum);
  CHECK(rule.factors.at("m").kind == FactorKind::Max);
  CHECK(rule.factors.at("w").kind == FactorKind::Whole);
  CHECK(rule.factors.at("r").form == PartForm::Scaled);
  CHECK(rule.factors.at("v").form == PartForm::Masked);
  CHECK(rule.factors.at("v").index == "index");
  CHECK(rule.factors.at("n").contiguous);
  CHECK(rule.added == std::vector<std::string>{"bias"});
  CHECK(rule.linear == std::vector<std::vector<std::string>>{{"a", "b"}, {"c"}});
}

TEST_CASE("a clause that is unknown is a bug") {
  CHECK_THROWS(parse_notation("[a] -> [a]; twist a"));
  CHECK_THROWS(parse_notation("[a] [b]"));
}
