// All work over all speed.
#include "planner/work_bound.h"

#include "tests/cost_model/fake_cost.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

Counts devices(std::int32_t a, std::int32_t b) {
  Counts counts;
  counts.of[0] = a;
  counts.of[1] = b;
  return counts;
}

}  // namespace

TEST_CASE("C23: the work of the blocks over the speed of the devices", "[work_bound_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = make_cluster({make_device("fast", 1 << 30), make_device("slow", 1 << 30)}, {2, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  FakeCost cost(graph, resources);
  cost.speed = {1.0, 0.5};
  cost.forward = {0, 1, 1, 1, 1};  // and twice that backward: 12 s a sample
  const SpanCosts spans(cost, plan::Precision::Float32, RecomputeRule::Free, {});
  const WorkBound work(spans, {{{0, {}, 1}}, {{1, {}, 1}}}, 4);
  const auto near = [](Cost value, double seconds) {
    return value <= static_cast<Cost>(seconds * 1e9) + 1 && value >= static_cast<Cost>(seconds * 1e9 * (1 - 1e-9)) - 1;
  };
  CHECK(near(work.least_time(5, devices(2, 1), 10), 120.0 / 2.5));
  CHECK(near(work.least_time(3, devices(1, 0), 10), 60.0));
  CHECK(near(work.least_time(5, devices(0, 1), 1), 24.0));
  CHECK(work.least_time(5, devices(0, 0), 1) == kNoCost);
  CHECK(work.least_time(1, devices(1, 0), 7) == 0);  // the first block is free
  CHECK(WorkBound::time_at(work.prices().front(), 5, 0, 1) == kNoCost);
}

TEST_CASE("units share what they are given once", "[work_bound_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  const SpanCosts spans(cost, plan::Precision::Float32, RecomputeRule::Free, {});
  WorkBounds bounds;
  const auto first = bounds.get(spans, {{{0, {}, 1}}}, 4, false);
  CHECK(bounds.get(spans, {{{0, {}, 1}}}, 4, false) == first);
  CHECK(bounds.get(spans, {{{0, {}, 1}}}, 2, false) != first);
}
