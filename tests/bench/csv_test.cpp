// Tables as others write them, good lines and bad.
#include "bench/support/csv.h"

#include <catch2/catch.hpp>

using coxswain::bench::parse_csv;

TEST_CASE("fields by column, quotes around commas, quotes and line ends", "[csv_test]") {
  const auto rows = parse_csv("a,b\r\n1,\"x, \"\"y\"\"\nz\"\n\n2,\n");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["a"] == "1");
  CHECK(rows[0]["b"] == "x, \"y\"\nz");
  CHECK(rows[0].line == 2);
  CHECK(rows[1]["a"] == "2");
  CHECK(rows[1]["b"].empty());
  CHECK(rows[1].line == 5);
  CHECK(rows[1]["no such column"].empty());
  CHECK(rows[0].problem.empty());
}

TEST_CASE("rows that do not fit the header say so", "[csv_test]") {
  const auto rows = parse_csv("a,b\n1\n1,2,3\n1,\"2\n");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].problem == "1 fields, the header has 2");
  CHECK(rows[1].problem == "3 fields, the header has 2");
  CHECK(rows[1]["b"] == "2");
  CHECK(rows[2].problem == "a quote is not closed");
}

TEST_CASE("a byte order mark is not part of the first column", "[csv_test]") {
  const auto rows = parse_csv(
      "\xEF\xBB\xBF"
      "a,b\n1,2\n");
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]["a"] == "1");
}

TEST_CASE("an empty text and a header alone have no rows", "[csv_test]") {
  CHECK(parse_csv("").empty());
  CHECK(parse_csv("a,b\n").empty());
}
