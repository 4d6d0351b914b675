// What a request allows, and the order of the outer loop.
#include <algorithm>

#include "planner/search.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("every divisor of the global batch is a micro-batch", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 12;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  CHECK(space->micros == std::vector<std::int64_t>{1, 2, 3, 4, 6, 12});
  CHECK_FALSE(space->large);
  CHECK(space->allowed_stages == std::vector<int>{1, 2});
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  const auto combinations = make_combinations(*space);
  CHECK(combinations.size() == 6 * 5);  // one stage once, two stages with each of four schedules
  CHECK(std::is_sorted(combinations.begin(), combinations.end(),
                       [](const Combination& a, const Combination& b) { return a.bound < b.bound; }));
}

TEST_CASE("on many devices stages are equal, in nodes one after the other or inside each node", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(6, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {8}, 8, make_link("l", 0, 1e9), make_link("o", 0, 1e8));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 64;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  CHECK(space->large);
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  const auto combinations = make_combinations(*space);
  CHECK(std::any_of(combinations.begin(), combinations.end(), [](const Combination& one) { return one.spread; }));
  for (const Combination& one : combinations) {
    CHECK(one.compositions->front().replicas() <= one.micro);
    CHECK(one.max_stages * one.compositions->front().replicas() <= 64);
  }
}

TEST_CASE("C24: the fill bound never exceeds the simulated step", "[search_space_test]") {
  std::mt19937 random(17);
  const model::ModelGraph graph = make_chain(6, 8);
  cluster::DeviceClass device = make_device("d", std::int64_t{1} << 40);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e8));
  FakeCost cost(graph, resources);
  for (double& forward : cost.forward) forward = std::uniform_int_distribution<int>(1, 9)(random) * 0.01;
  cost.forward[0] = 0;
  Request request;
  request.cost = &cost;
  request.global_batch = 24;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  int checked = 0;
  for (const Combination& one : make_combinations(*space)) {
    const auto found = search_combination(*space, one, kNoCost, {});
    if (found.candidates.empty()) continue;
    const Cost step =
        cost_model::to_ticks(Seconds(simulated_step(cost, place_candidate(*space, found.candidates.front()))));
    CHECK(one.bound <= step);
    CHECK(found.candidates.front().bound <= step);
    ++checked;
  }
  CHECK(checked > 20);
}

TEST_CASE("C27: with two classes the bound never exceeds the simulated step", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(6, 8);
  std::vector<cluster::DeviceClass> classes{make_device("fast", std::int64_t{1} << 40),
                                            make_device("slow", std::int64_t{1} << 40)};
  for (auto& device : classes) device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster(classes, {2, 2}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e8));
  FakeCost cost(graph, resources);
  cost.speed = {1.0, 0.3};
  Request request;
  request.cost = &cost;
  request.global_batch = 24;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  REQUIRE(space->large);
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  int checked = 0;
  for (const Combination& one : make_combinations(*space)) {
    const auto found = search_combination(*space, one, kNoCost, {});
    if (found.candidates.empty()) continue;
    CHECK(one.bound <=
          cost_model::to_ticks(Seconds(simulated_step(cost, place_candidate(*space, found.candidates.front())))));
    ++checked;
  }
  CHECK(checked > 20);
}

TEST_CASE("C25, C26: on meshes and under ZeRO the search never costs more than the simulator", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(4, 64);
  cluster::DeviceClass device = make_device("d", 400000);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 2, make_link("l", 1e-6, 1e8), make_link("o", 1e-6, 1e6));
  FakeCost cost(graph, resources);
  cost.forward.assign(6, 1e-3);
  cost.saved = {0, 30000, 30000, 30000, 30000, 10};
  cost.optimizer_per_parameter = 1e-7;
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  request.capabilities = plan::kPlannable;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  REQUIRE(space->axes.size() == 1);
  CHECK(space->axes[0] == std::vector<Axes>{{1, 1}, {2, 1}, {4, 1}});
  CHECK(space->states.size() == 4 * 3);  // ZeRO 0 to 3, with each offload
  CHECK(space->schedules.size() == 4);
  int checked = 0, sharded = 0, wide = 0;
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {}, true);
  space->spans = &spans;
  for (const Combination& one : make_combinations(*space)) {
    const auto found = search_combination(*space, one, kNoCost, {});
    if (found.candidates.empty()) continue;
    const plan::Plan plan = place_candidate(*space, found.candidates.front());
    const auto simulation = cost_model::simulate(cost, plan);
    REQUIRE(simulation.has_value());
    INFO(summarize(plan));
    CHECK(found.candidates.front().bound <= cost_model::to_ticks(simulation->estimate.step));
    CHECK(one.bound <= cost_model::to_ticks(simulation->estimate.step));
    for (const auto& used : simulation->estimate.devices) CHECK(used.parts.total() <= used.capacity);
    ++checked;
    const auto any = [&](auto holds) { return std::any_of(plan.stages.begin(), plan.stages.end(), holds); };
    sharded += any([](const plan::Stage& stage) { return stage.zero_stage > 0; });
    wide += any([](const plan::Stage& stage) { return stage.replicas.front().tensor > 1; });
  }
  CHECK(wide > 5);
  CHECK(checked > 20);
  CHECK(sharded > 5);
}

TEST_CASE("a tensor degree that no node holds is refused with those that fit", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {4}, 2, make_link("l", 0, 1e9), make_link("o", 0, 1e8));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  request.constraints.tensor = {8};
  CHECK(make_search_space(request).error().code == ErrorCode::Unimplemented);  // runnable: one device
  request.capabilities = plan::kPlannable;
  const auto space = make_search_space(request);
  REQUIRE_FALSE(space.has_value());
  CHECK(space.error().expected == "one of 1, 2, 3, 4");
}

TEST_CASE("recompute lists name blocks that exist", "[search_space_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.constraints.recompute = "[1,4]";
  const auto rule = recompute_rule(request);
  REQUIRE(rule.has_value());
  CHECK(rule->second == std::vector<char>{0, 1, 0, 0, 1});
  request.constraints.recompute = "selective";
  CHECK(recompute_rule(request)->first == RecomputeRule::Selective);
  request.constraints.recompute = "[5]";
  CHECK_FALSE(recompute_rule(request).has_value());
}
