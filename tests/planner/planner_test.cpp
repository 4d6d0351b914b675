// What the entry adds to a search.
#include "planner/planner.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("one more device is a sensitivity on one node of few devices", "[planner_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {2}, 1, make_link("cable", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 6;
  const auto found = find_plan(request);
  REQUIRE(found.has_value());
  REQUIRE_FALSE(found->sensitivities.empty());
  CHECK(found->sensitivities.back().change == "one more dev");
  // 6 samples on 3 instead of 2 devices, links nearly free.
  CHECK(found->sensitivities.back().step.value == Approx(found->estimate.step.value * 2 / 3).epsilon(0.02));
}
