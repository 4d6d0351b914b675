// A look at one stage of each kind.
#include "planner/quick_look.h"

#include "planner/combination_bounds.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("C37: equal blocks on two kinds of stages, the slow ones with fewer", "[quick_look_test]") {
  const model::ModelGraph graph = make_chain(10, 8);  // twelve blocks
  std::vector<cluster::DeviceClass> classes{make_device("fast", std::int64_t{1} << 40),
                                            make_device("slow", std::int64_t{1} << 40)};
  for (auto& device : classes) device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster(classes, {4, 4}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e9));
  FakeCost cost(graph, resources);
  cost.forward.assign(12, 1.0);
  cost.speed = {1.0, 0.5};
  Request request;
  request.cost = &cost;
  request.global_batch = 96;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  Counts fast, slow;
  fast.of[0] = slow.of[1] = 24;
  Combination one;
  one.micro = 24;
  one.count = 4;
  one.min_stages = one.max_stages = 2;
  one.compositions = std::make_shared<const std::vector<Composition>>(std::vector<Composition>{
      make_composition(space->pools, fast, Axes{}), make_composition(space->pools, slow, Axes{})});
  set_bounds(*space, std::span(&one, 1));
  const QuickLook look = quick_look(*space, one);
  CHECK(look.num_blocks == std::vector<int>{8, 4});
  CHECK(look.num_stages == 2);
  // Four micro-batches of 8 x 3 s, and one more stage to fill; updates and sums are small beside it.
  CHECK(static_cast<double>(look.cost) * 1e-9 == Approx(4 * 24 + 24).epsilon(0.01));
  CHECK(look.cost >= one.bound);
  // Four chunks a stage, as many as the slow one has blocks: the other stage waits for a fourth as long.
  space->chunked_schedules.clear();
  CHECK(chunked_look(*space, one, look).cost == kNoCost);
  space->chunked_schedules = {plan::ScheduleKind::Interleaved};
  const QuickLook chunked = chunked_look(*space, one, look);
  CHECK(chunked.num_chunks == 4);
  CHECK(chunked.num_blocks == look.num_blocks);
  CHECK(static_cast<double>(chunked.cost) * 1e-9 == Approx(4 * 24 + 6).epsilon(0.01));
}

TEST_CASE("where one block does not fit there is nothing to look at", "[quick_look_test]") {
  const model::ModelGraph graph = make_chain(4, 64);
  cluster::DeviceClass device = make_device("d", 1000);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e8));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 24;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  Counts units;
  units.of[0] = 4;
  Combination one;
  one.micro = 24;
  one.count = 1;
  one.compositions = std::make_shared<const std::vector<Composition>>(1, make_composition(space->pools, units, Axes{}));
  set_bounds(*space, std::span(&one, 1));
  CHECK(quick_look(*space, one).cost == kNoCost);
}
