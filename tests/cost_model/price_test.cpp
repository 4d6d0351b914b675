// Money, by hand: C60 devices, C61 links, C62 the least of all plans.
#include "cost_model/price.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

cluster::DeviceClass priced(const std::string& name, double usd_per_hour) {
  cluster::DeviceClass device = make_device(name, 1 << 30);
  device.price = {cluster::UsdPerHour(usd_per_hour), cluster::Source::Assumed};
  return device;
}

}  // namespace

TEST_CASE("C60: a step costs the used devices for its time", "[price_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  auto resources = make_cluster({priced("a", 3.6)}, {3}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  const auto plan = make_plan(graph, resources, {{0, 6, {{0, 0}, {0, 1}}, {1, 1}}}, 1);
  // Two of three devices, 10 s, 0.001 USD a second each.
  CHECK(estimate_cost_per_step(cost, plan, Seconds(10))->value == Approx(0.02));
  const auto simulation = simulate(cost, plan);
  REQUIRE(simulation.has_value());
  CHECK(simulation->estimate.cost_per_step->value == Approx(simulation->estimate.step.value * 0.002));
  resources.device_classes[0].price.value = cluster::UsdPerHour(0);
  CHECK_FALSE(estimate_cost_per_step(cost, plan, Seconds(10)).has_value());
  CHECK(unpriced_classes(resources) == "a");
}

TEST_CASE("C61: bytes over a priced link cost", "[price_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  cluster::LinkClass outer = make_link("wan", 0, 1e9);
  outer.price = {cluster::UsdPerByte(1e-6), cluster::Source::Assumed};
  const auto resources = make_cluster({priced("a", 3.6)}, {1}, 2, make_link("l", 0, 1e9), outer);
  const FakeCost cost(graph, resources);
  // One sample of 8 floats forward and its gradient back, in each of 2 micro-batches: 128 bytes.
  const auto pipeline = make_plan(graph, resources, {{0, 3, {{0, 0}}, {1}}, {3, 6, {{0, 1}}, {1}}}, 2);
  CHECK(estimate_cost_per_step(cost, pipeline, Seconds(0))->value == Approx(128e-6));
  // An all-reduce of 256 gradients of 4 bytes around a ring of two: each sends 2 x 1/2 x 1,024 bytes.
  const auto replicas = make_plan(graph, resources, {{0, 6, {{0, 0}, {0, 1}}, {1, 1}}}, 1);
  CHECK(estimate_cost_per_step(cost, replicas, Seconds(0))->value == Approx(2048e-6));
}

TEST_CASE("C62: no plan is cheaper than every block on the class that does it for least", "[price_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({priced("a", 3.6), priced("b", 10.8)}, {1, 1}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  FakeCost cost(graph, resources);
  cost.speed = {1, 2};
  // 6 blocks of 3 s a sample: 0.003 USD on a, 0.0045 on b; 4 samples.
  CHECK(least_cost_per_step(cost, 4, plan::Precision::Float32, 1)->value == Approx(0.072));
  cost.speed = {1, 4};
  CHECK(least_cost_per_step(cost, 4, plan::Precision::Float32, 1)->value == Approx(6 * 4 * 0.75 * 0.003));
  const auto plan = make_plan(graph, resources, {{0, 6, {{0, 0}}, {4}}}, 1);
  CHECK(least_cost_per_step(cost, 4, plan::Precision::Float32, 1)->value <=
        simulate(cost, plan)->estimate.cost_per_step->value);
}
