// Least money and limits, on instances whose answer is known.
#include "planner/objective.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Two fast cards that cost five times a slow one and compute twice as fast.
struct PricedWorld {
  model::ModelGraph graph = make_chain(4, 8);
  cluster::ResourceGraph resources;
  std::unique_ptr<FakeCost> cost;
  explicit PricedWorld(double dear = 18, double cheap = 3.6) {
    auto fast = make_device("fast", 1 << 30), slow = make_device("slow", 1 << 30);
    fast.price.value = cluster::UsdPerHour(dear);
    slow.price.value = cluster::UsdPerHour(cheap);
    resources = make_cluster({fast, slow}, {2, 2}, 1, make_link("l", 1e-6, 1e9), make_link("o", 0, 1));
    cost = std::make_unique<FakeCost>(graph, resources);
    cost->speed = {2, 1};
  }
  [[nodiscard]] Request request() const {
    Request request;
    request.cost = cost.get();
    request.global_batch = 4;
    return request;
  }
};

}  // namespace

TEST_CASE("the least cost stands on the devices that do the work for least money", "[objective_test]") {
  const PricedWorld world;
  Request request = world.request();
  const auto fastest = search_objective(request);
  REQUIRE(fastest.has_value());
  request.objective = Objective::Cost;
  const auto cheapest = search_objective(request);
  REQUIRE(cheapest.has_value());
  // 4 samples x 6 blocks x 3 s at 0.001 USD a second on slow ones; 0.0025 USD a second of such work on fast ones.
  CHECK(cheapest->estimate.cost_per_step->value == Approx(0.072).epsilon(1e-3));
  CHECK(cheapest->lower_bound_cost->value == Approx(0.072));
  CHECK(cheapest->optimality_gap < 1e-3);
  for (const plan::Stage& stage : cheapest->plan.stages) {
    for (const plan::Replica& replica : stage.replicas) CHECK(replica.devices.front().device_class == 1);
  }
  CHECK(fastest->estimate.step < cheapest->estimate.step);
  CHECK(*fastest->estimate.cost_per_step > *cheapest->estimate.cost_per_step);
}

TEST_CASE("limits hold, and what cannot keep them says how far it is", "[objective_test]") {
  const PricedWorld world;
  Request request = world.request();
  request.objective = Objective::Cost;
  request.max_step = Seconds(20);  // all four devices: 72 s / 6 = 12; both fast ones alone: 18
  const auto limited = search_objective(request);
  REQUIRE(limited.has_value());
  CHECK(limited->estimate.step.value <= 20);
  CHECK(limited->estimate.cost_per_step->value > 0.072 * 1.01);
  request.max_cost_per_step = cluster::Usd(0.08);
  const auto impossible = search_objective(request);
  REQUIRE_FALSE(impossible.has_value());
  CHECK(impossible.error().code == ErrorCode::ResourceExhausted);
  CHECK(impossible.error().hint.find("loosen") != std::string::npos);
  request = world.request();
  request.max_step = Seconds(1);
  CHECK(search_objective(request).error().hint.find("allow") == 0);
  request.max_step.reset();
  request.max_cost_per_step = cluster::Usd(0.1);
  const auto fastest = search_objective(request);
  REQUIRE(fastest.has_value());
  CHECK(fastest->estimate.cost_per_step->value <= 0.1);
}

TEST_CASE("money without prices is refused with how to give them", "[objective_test]") {
  const PricedWorld world(18, 0);
  Request request = world.request();
  request.objective = Objective::Cost;
  const auto found = search_objective(request);
  REQUIRE_FALSE(found.has_value());
  CHECK(found.error().code == ErrorCode::InvalidArgument);
  CHECK(found.error().got == "no price of slow");
  CHECK(found.error().hint.find("--price") != std::string::npos);
}

TEST_CASE("money is told with as many digits as it takes", "[objective_test]") {
  CHECK(usd_text(cluster::Usd(12.345)) == "$12.35");
  CHECK(usd_text(cluster::Usd(0.0012345)) == "$0.00123");
}
