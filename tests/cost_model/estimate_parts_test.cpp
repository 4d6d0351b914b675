// C20 and C21 on a run written by hand.
#include "cost_model/simulator.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("C20: gaps are exposed communication while a transfer moves, bubble otherwise", "[estimate_parts_test]") {
  const model::ModelGraph graph = make_chain(1, 8);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30, 1e3)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  const auto plan = make_plan(graph, resources, {{0, 3, {{0, 0}}, {1}}}, 1);
  constexpr Ticks kSecond = 1'000'000'000;
  VirtualRun run;
  run.makespan = 100 * kSecond;
  run.roles.resize(1);
  // Compute 10-40 (5 of it lost to copies), transfer issued at 40, moving 50-60, compute 70-90, end at 100.
  run.roles[0] = {{true, 10 * kSecond, 10 * kSecond, 40 * kSecond, {20 * kSecond, 5 * kSecond, 0, 0}},
                  {false, 40 * kSecond, 50 * kSecond, 60 * kSecond, {}},
                  {true, 70 * kSecond, 70 * kSecond, 90 * kSecond, {0, 10 * kSecond, 7 * kSecond, 3 * kSecond}}};
  const plan::Estimate e = make_estimate(cost, plan, run);
  CHECK(e.step.value == Approx(100));
  CHECK(e.forward.value == Approx(20));
  CHECK(e.backward.value == Approx(15));
  CHECK(e.recompute.value == Approx(7));
  CHECK(e.optimizer.value == Approx(3));
  CHECK(e.communication_exposed.value == Approx(15));
  CHECK(e.bubble.value == Approx(40));
  CHECK(e.devices[0].busy_fraction == Approx(0.45));
  CHECK(e.bubble_fraction == Approx(0.55));
  // C21: one linear of 8 x 8 and one sample: 3 x 128 FLOP in 100 s on one device of 1000 FLOP per second.
  CHECK(e.model_flops_utilization == Approx(384.0 / 1e5));
  CHECK(e.tokens_per_second == Approx(0.01));
  CHECK(e.devices[0].capacity.value == 1 << 30);
  CHECK(e.devices[0].peak_memory == e.devices[0].parts.total() - e.devices[0].parts.margin);
}
