// What the outer loop goes through.
#include <algorithm>
#include <set>

#include "planner/search.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("on few devices stages choose among all mixtures of units", "[combinations_test]") {
  const model::ModelGraph graph = make_chain(4, 64);
  const auto resources = make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 30)}, {2, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 4;
  request.capabilities = plan::kPlannable;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  const auto combinations = make_combinations(*space);
  REQUIRE_FALSE(combinations.empty());
  std::set<std::pair<int, std::vector<std::int32_t>>> seen;  // tensor degree, units
  for (const Composition& one : *combinations.front().compositions) {
    const std::size_t pool = one.units.of[0] > 0 ? 0 : 1;
    seen.insert({one.axes[pool].tensor, {one.units.of[0], one.units.of[1]}});
  }
  // One by one: 0 to 2 of a, 0 or 1 of b, not none; and both of a as one unit.
  CHECK(seen == std::set<std::pair<int, std::vector<std::int32_t>>>{
                    {1, {1, 0}}, {1, {2, 0}}, {1, {0, 1}}, {1, {1, 1}}, {1, {2, 1}}, {2, {1, 0}}});
}

TEST_CASE("on many devices stages are alike: apart, or each of everything", "[combinations_test]") {
  const model::ModelGraph graph = make_chain(6, 64);
  std::vector<cluster::DeviceClass> classes{make_device("fast", std::int64_t{1} << 40),
                                            make_device("slow", std::int64_t{1} << 40)};
  for (auto& device : classes) device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster(classes, {2, 2}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e8));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 24;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  REQUIRE(space->large);
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  int apart = 0, mixed = 0;
  for (const Combination& one : make_combinations(*space)) {
    for (const Composition& composition : *one.compositions) {
      const bool both = composition.units.of[0] > 0 && composition.units.of[1] > 0;
      ++(both ? mixed : apart);
      if (!both) continue;
      // Each stage takes its part of both pools of twelve.
      CHECK(one.min_stages == one.max_stages);
      CHECK(composition.units.of[0] == 12 / one.max_stages);
      CHECK(composition.units.of[1] == 12 / one.max_stages);
    }
    CHECK(one.micro * one.count == 24);
    CHECK(one.work != nullptr);
  }
  CHECK(apart > 10);
  CHECK(mixed > 4);
}
