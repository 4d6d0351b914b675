// Stages whose replicas differ.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("a stage of unlike replicas is found where like ones leave GPUs idle", "[sailor_stages_test]") {
  // One layer, three samples: two GPUs of a and one of b make one round of 2 s; a alone needs two rounds of 1 s and a
  // longer ring; all three with tp 1 are best since tp 2 on a halves 1 s but needs three rounds.
  SailorInstance instance = make_instance(1, 3, {{0, 0, 2}, {1, 0, 1}});
  for (auto& [key, profile] : instance.profiles) profile[0]->compute_seconds = key.tp == 1 ? 1.0 : 0.9;
  const auto answer = solve_sailor(instance, {});
  REQUIRE(answer);
  // 4e6 bytes in 2 x 2 steps of a third of them.
  CHECK(1 / answer->score == Approx(1.0 + 0.5 + 4 * 4e-3 / 3).epsilon(1e-12));
  const auto& replicas = answer->answer["stages"].array()[0]["replicas"].array();
  REQUIRE(replicas.size() == 2);
  CHECK(replicas[0]["count"].integer() + replicas[1]["count"].integer() == 3);
}
