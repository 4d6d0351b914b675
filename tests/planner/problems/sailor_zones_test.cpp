// Replicas dealt to zones, and their order in the ring.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("replicas alternate between zones whose links are faster than their own", "[sailor_zones_test]") {
  SailorInstance instance = make_instance(1, 6, {{0, 0, 3}, {0, 1, 3}});
  instance.layers.at(1)[0]->parameters = 75e6;
  for (auto& [ends, curve] : instance.links) curve.c0 = ends.first.zone == ends.second.zone ? 1 : 1.5;
  const auto answer = solve_sailor(instance, {});
  REQUIRE(answer);
  // All six on x y x y x y: 0.3e9 bytes in 10 steps of 0.05e9 at 1.5 x 10^9 bytes a second.
  CHECK(1 / answer->score == Approx(1.0 + 0.5 + 10 * 0.05 / 1.5).epsilon(1e-12));
}
