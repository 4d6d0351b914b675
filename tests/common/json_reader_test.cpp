#include "common/json.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

TEST_CASE("a reader hands out what is there") {
  const Json json = parse_json(R"({"n":3,"x":2,"b":true,"s":"t","o":{"k":1},"a":[1,2],"any":null})").value();
  JsonReader reader(json, "plan");
  CHECK(reader.integer("n", 1, 5) == 3);
  CHECK(reader.number("x") == 2.0);
  CHECK(reader.boolean("b"));
  CHECK(reader.string("s") == "t");
  CHECK(reader.object("o")["k"].integer() == 1);
  CHECK(reader.array("a").size() == 2);
  CHECK(reader.any("any").is_null());
  CHECK_FALSE(reader.has("any"));
  CHECK_FALSE(reader.has("missing"));
  CHECK(reader.has("n"));
  CHECK(reader.path() == "plan");
  CHECK(reader.finish().has_value());
}

TEST_CASE("a reader collects every problem with its path") {
  const Json json = parse_json(R"({"n":9,"x":"fast","b":1,"s":[],"o":3,"a":{},"odd":"x"})").value();
  JsonReader reader(json, "stages[1]");
  CHECK(reader.integer("n", 1, 5) == 1);
  CHECK(reader.number("x") == 0.0);
  CHECK_FALSE(reader.boolean("b"));
  CHECK(reader.string("s").empty());
  CHECK(reader.object("o").is_object());
  CHECK(reader.array("a").empty());
  CHECK(reader.integer("gone", 0, 7) == 0);
  const auto finished = reader.finish();
  REQUIRE_FALSE(finished.has_value());
  CHECK(to_text(finished.error()) ==
        "error: 8 problems in stages[1]\n"
        "error: wrong value\n  at:       stages[1].n\n  expected: an integer from 1 to 5\n  got:      9\n"
        "error: wrong value\n  at:       stages[1].x\n  expected: a number\n  got:      \"fast\"\n"
        "error: wrong value\n  at:       stages[1].b\n  expected: true or false\n  got:      1\n"
        "error: wrong value\n  at:       stages[1].s\n  expected: a string\n  got:      an array\n"
        "error: wrong value\n  at:       stages[1].o\n  expected: an object\n  got:      3\n"
        "error: wrong value\n  at:       stages[1].a\n  expected: an array\n  got:      an object\n"
        "error: missing member\n  at:       stages[1].gone\n  expected: an integer from 0 to 7\n  got:      nothing\n"
        "error: unknown member\n  at:       stages[1].odd\n  expected: a, b, gone, n, o, s, x\n  got:      \"x\"\n");
}

TEST_CASE("what is no object is one problem, however many members are asked for") {
  const Json json(3);
  JsonReader reader(json, "plan");
  CHECK(reader.integer("n", 2, 5) == 2);
  CHECK(reader.string("s").empty());
  const auto problems = reader.take_problems();
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "plan");
  CHECK(problems[0].expected == "an object");
  CHECK(reader.take_problems().empty());
}

TEST_CASE("a reader prefixes the problems it is told of") {
  const Json json{JsonObject{}};
  JsonReader reader(json, "cluster");
  reader.problem(Error{ErrorCode::InvalidArgument, "odd", "nodes[0]", "", "", ""});
  CHECK(reader.finish().error().path == "cluster.nodes[0]");
}

}  // namespace
}  // namespace coxswain
