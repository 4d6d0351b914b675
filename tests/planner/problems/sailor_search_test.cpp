// The search against all plans of tiny instances.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("the search finds the best of all plans on one and on two types", "[sailor_search_test]") {
  std::mt19937 random(5);
  int solved = 0;
  for (int round = 0; round < 60; ++round) {
    const int other = static_cast<int>(random() % 4);
    std::vector<SailorPool> pools{{0, 0, 2 + static_cast<int>(random() % 4)}};
    if (other > 0) pools.push_back({1, 0, other});
    SailorInstance instance = random_instance(random, pools);
    instance.minimise_cost = random() % 3 == 0;
    if (!instance.minimise_cost && random() % 3 == 0) instance.max_usd_per_iteration = 4.0;
    const bool strict = random() % 2 == 0;
    const double expected = AllPlans(instance, strict).best();
    const auto answer = solve_sailor(instance, {.strict = strict});
    REQUIRE(answer.has_value() == (expected < 1e300));
    if (!answer) continue;
    ++solved;
    CHECK((instance.minimise_cost ? answer->score : 1 / answer->score) <= expected * (1 + 1e-9));
  }
  CHECK(solved > 30);
}
