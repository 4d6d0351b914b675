// What the entry adds to a search.
#include "planner/planner.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("a result tells what every class does and which devices stay unused", "[planner_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {3}, 1, make_link("cable", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 1;
  request.constraints.pipeline = {1};
  const auto found = find_plan(request);
  REQUIRE(found.has_value());
  REQUIRE(found->classes.size() == 1);
  CHECK(found->classes[0].used == 1);
  CHECK(found->summary == summarize(found->plan) + "; unused: 2 x dev (would not make the step shorter)");
}

TEST_CASE("a failure is explained only when that is asked for", "[planner_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {2}, 1, make_link("cable", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 2;
  request.constraints.data = {2};
  request.constraints.micro = {1};
  CHECK(find_plan(request).error().message == "data=2 and micro=1 cannot be met together");
  request.explain_failure = false;
  CHECK(find_plan(request).error().message == "no plan meets the constraints");
}
