// Branch and bound over everything that a small space holds; bench/brute_force compares it with every plan.
#include "planner/proof.h"

#include "tests/planner/plan_space.h"
#include "tests/planner/space_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Steps of a small instance by brute force, and by proof from nothing.
void compare(unsigned seed, const SpaceAxes& axes) {
  std::mt19937 random(seed);
  const auto instance = InstanceMaker(random).make(3, 3);
  const Request request = instance->request(capabilities_of(axes));
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(*request.cost, request.precision, RecomputeRule::Free, {}, axes.selective);
  space->spans = &spans;
  const auto simulate = [&](const Candidate& candidate) -> std::optional<Cost> {
    const plan::Plan plan = place_candidate(*space, candidate);
    const auto simulation = cost_model::simulate(*request.cost, plan);
    if (!simulation) return std::nullopt;
    for (const plan::DeviceEstimate& device : simulation->estimate.devices) {
      if (device.parts.total() > device.capacity) return std::nullopt;
    }
    return cost_model::to_ticks(simulation->estimate.step);
  };
  const auto combinations = make_combinations(*space);
  const Proof proof = prove(*space, combinations, kNoCost, {1000000, 100000000}, simulate);
  const PlanSpace::Best best =
      PlanSpace(*instance->cost, instance->global, axes).run(std::numeric_limits<double>::infinity());
  INFO("seed " << seed << ", optimum " << best.step);
  CHECK(proof.complete);
  if (std::isinf(best.step)) {
    CHECK(proof.lower_bound == kNoCost);
    return;
  }
  CHECK(cost_model::to_seconds(proof.lower_bound).value == Approx(best.step).epsilon(1e-9));

  // One label is enough for nothing: what is left over is a bound all the same.
  const Proof cut_short = prove(*space, combinations, kNoCost, {1, 1}, simulate);
  CHECK_FALSE(cut_short.complete);
  CHECK(cut_short.simulated == 0);
  CHECK(cut_short.lower_bound <= proof.lower_bound);
  // A plan that is known and is the best: nothing is better.
  CHECK(prove(*space, combinations, proof.lower_bound, {1000000, 100000000}, simulate).lower_bound ==
        proof.lower_bound);
}

}  // namespace

TEST_CASE("3 blocks on 3 devices: the proof ends at the best of all plans", "[proof_test]") {
  const SpaceAxes axes = full_axes(2);
  for (unsigned seed = 0; seed < 6; ++seed) compare(seed, axes);
}
