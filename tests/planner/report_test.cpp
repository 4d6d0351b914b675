// One line and JSON.
#include "planner/planner.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("a plan in one line", "[report_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("a", 1 << 30)}, {4}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  CHECK(summarize(make_plan(graph, resources, {{0, 6, {{0, 0}}, {8}}}, 2)) == "dp1 pp1, micro 8 x 2, recompute none");
  CHECK(summarize(make_plan(graph, resources,
                            {{0, 3, {{0, 0}, {0, 1}}, {5, 3}}, {3, 6, {{0, 2}, {0, 3}}, {4, 4}, plan::Recompute::Full}},
                            4)) == "dp2 pp2, cuts [3], micro 8 x 4 (5+3), 1f1b, recompute 3 of 6 blocks");
  CHECK(summarize(make_plan(graph, resources, {{0, 3, {{0, 0}, {0, 1}, {0, 2}}, {2, 2, 2}}, {3, 6, {{0, 3}}, {6}}}, 1,
                            plan::ScheduleKind::GPipe)) == "dp1-3 pp2, cuts [3], micro 6 x 1, gpipe, recompute none");
}

TEST_CASE("a result has the keys of the interface", "[report_test]") {
  std::mt19937 random(1);
  const auto instance = random_instance(random);
  const auto found = find_plan(instance->request());
  REQUIRE(found.has_value());
  const Json json = to_json(*found);
  for (const char* key : {"plan", "estimate", "lower_bound_step_seconds", "optimality_gap", "binding_constraint",
                          "runners_up", "rejected", "sensitivities", "search"}) {
    CHECK_FALSE(json[key].is_null());
  }
  CHECK(json["search"]["candidates_costed"].integer() == found->candidates_costed);
  CHECK(json["estimate"]["step_seconds"].number() == found->estimate.step.value);
}
