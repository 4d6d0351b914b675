// Two plans side by side.
#include "planner/compare.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("the part that explains most of a difference is named in its direction", "[compare_test]") {
  plan::Estimate ours, other;
  ours.forward = Seconds(1);
  other.forward = Seconds(0.25);  // gains, so it explains nothing
  ours.bubble = Seconds(0.5);
  other.bubble = Seconds(1.5);
  const auto differences = part_differences(ours, other);
  CHECK(differences.front().part == "bubble");
  CHECK(main_difference(differences, true) == "mostly by bubble (500.00 ms -> 1.500 s)");
  CHECK(main_difference(differences, false) == "mostly by forward (1.000 s -> 250.00 ms)");
}

TEST_CASE("differences of layout that can explain the part come first", "[compare_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {2}, 2, make_link("nvlink", 0, 1e9), make_link("tcp", 0, 1e6));
  const FakeCost cost(graph, resources);
  const auto inside = make_plan(graph, resources, {{0, 3, {{0, 0}}, {4}}, {3, 6, {{0, 1}}, {4}}}, 1);
  const auto across = make_plan(graph, resources, {{0, 3, {{0, 0}}, {2}}, {3, 6, {{0, 2}}, {2}}}, 2);
  const auto sentences = layout_differences(cost, inside, across, "communication exposed");
  REQUIRE(sentences.size() >= 2);
  CHECK(sentences[0] == "it pipelines over tcp where this one pipelines over nvlink");
  CHECK(layout_differences(cost, inside, across, "forward")[0] ==
        "it runs 2 micro-batches of 2 where this one runs 1 micro-batch of 4");
  CHECK(layout_differences(cost, inside, inside, "bubble").empty());
}
