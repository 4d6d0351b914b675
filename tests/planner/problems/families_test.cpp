// The list of families: what a contest directory may hold, each with a reader that refuses what is no instance.
#include <algorithm>

#include "planner/problems/contest.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

TEST_CASE("families stand in the order of their names and refuse what is no instance", "[families]") {
  const auto& families = contest_families();
  REQUIRE(families.size() >= 3);
  CHECK(std::is_sorted(families.begin(), families.end(),
                       [](const ContestFamily& a, const ContestFamily& b) { return a.name < b.name; }));
  for (const ContestFamily& family : families) {
    INFO(family.name);
    const auto loaded = family.load(JsonObject{}, "instance.json");
    REQUIRE_FALSE(loaded.has_value());
    CHECK(loaded.error().code == ErrorCode::InvalidArgument);
  }
}
