// A few instances of bench/brute_force, which compares with every plan of the space (and does so for 6 blocks on 6
// devices): figures of issue row g.
#include <cmath>

#include "planner/planner.h"
#include "tests/planner/plan_space.h"
#include "tests/planner/space_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

struct Tally {
  int feasible = 0, equal = 0;
};

void compare(unsigned seed, int blocks, int devices, const SpaceAxes& axes, Tally& tally) {
  std::mt19937 random(seed);
  const auto instance = InstanceMaker(random).make(blocks, devices);
  const auto found = find_plan(instance->request(capabilities_of(axes)));
  const double at_most = found ? found->estimate.step.value : std::numeric_limits<double>::infinity();
  const PlanSpace::Best best = PlanSpace(*instance->cost, instance->global, axes).run(at_most);
  INFO("seed " << seed << ": " << (found ? found->summary : "none"));
  REQUIRE(found.has_value() == std::isfinite(best.step));
  if (!found) return;
  INFO("optimum " << best.step << " " << summarize(best.plan));
  CHECK(found->estimate.step.value <= best.step * 1.01);
  CHECK(best.step <= found->estimate.step.value * (1 + 1e-6));  // the plan found is one of the space
  CHECK(found->lower_bound_step.value <= best.step * (1 + 1e-9));
  ++tally.feasible;
  tally.equal += found->estimate.step.value <= best.step * (1 + 1e-6) ? 1 : 0;
}

/// Two equal blocks and two devices: 7 stage settings on paper.
TEST_CASE("the enumeration visits as many plans as can be counted on paper", "[brute_force_test]") {
  const model::ModelGraph graph = make_uneven_chain({64, 64, 64}, 4, false);
  const auto resources = make_cluster({make_device("a", std::int64_t{1} << 40)}, {2}, 1, make_link("l", 1e-5, 1e9),
                                      make_link("o", 0, 1e9));
  TableCost cost(graph, resources);
  cost.blocks = {{1e-3, 2e-3}, {1e-3, 2e-3}};
  cost.speed = {{1, 1}};
  const auto count = [&](const SpaceAxes& axes) {
    // Above any plan, so that nothing is left out; each that is simulated is slower than the bound.
    std::int64_t plans = 0;
    PlanSpace(cost, 2, axes).visit_all([&](const plan::Plan& plan) {
      ++plans;
      CHECK(summarize(plan) != "");
    });
    return plans;
  };
  SpaceAxes axes;
  axes.schedules = {plan::ScheduleKind::OneForwardOneBackward};
  axes.recompute = false;
  // Micro-batch 1: one device, or a pipeline of two. Micro-batch 2: the same, or two replicas.
  CHECK(count(axes) == 5);
  // ZeRO only where there are two replicas: three more.
  axes.max_zero_stage = 3;
  CHECK(count(axes) == 8);
  // A tensor axis of two devices for one stage, at either micro-batch.
  axes.max_tensor = 2;
  CHECK(count(axes) == 10);
  // Four choices of recomputed blocks for each.
  axes.recompute = true;
  CHECK(count(axes) == 40);
  // GPipe differs where there are two stages and two micro-batches.
  axes.schedules.push_back(plan::ScheduleKind::GPipe);
  CHECK(count(axes) == 44);
}

}  // namespace

TEST_CASE("no simulated step is below the bound that spares the enumeration a simulation", "[brute_force_test]") {
  int plans = 0, equal = 0;
  for (unsigned seed = 1200; seed < 1210; ++seed) {
    std::mt19937 random(seed);
    const auto instance = InstanceMaker(random).make(4, 4);
    PlanSpace space(*instance->cost, instance->global, full_axes(4));
    for (int i = 0; i < 20; ++i) {
      const auto plan = space.random_plan(random);
      if (!plan) break;
      const double bound = space.least_seconds();
      const auto simulation = cost_model::simulate(*instance->cost, *plan);
      REQUIRE(simulation.has_value());
      INFO("seed " << seed << ": " << summarize(*plan));
      CHECK(bound <= simulation->estimate.step.value * (1 + 1e-9));
      ++plans;
      equal += bound >= simulation->estimate.step.value * (1 - 1e-9) ? 1 : 0;
    }
  }
  CHECK(plans > 100);
  CHECK(equal > plans / 4);  // where no link is shared and no CPU copies, it is the step
}

TEST_CASE("4 blocks on 4 devices of two classes: as good as the best of all plans", "[brute_force_test]") {
  SpaceAxes axes = full_axes(4);
  Tally tally;
  for (unsigned seed = 9000; seed < 9004; ++seed) compare(seed, 4, 4, axes, tally);
  CHECK(tally.equal >= 0.95 * tally.feasible);
}
