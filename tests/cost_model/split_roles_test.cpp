// Which replicas run alike, by hand; and that the simulator waits for the slow neighbour of one of two equal replicas.
#include "cost_model/split_roles.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

const model::ModelGraph& graph() {
  static const model::ModelGraph kGraph = make_chain(3, 16);
  return kGraph;
}

cluster::ResourceGraph resources() {
  return make_cluster({make_device("fast", std::int64_t{1} << 40), make_device("slow", std::int64_t{1} << 40)}, {4, 2},
                      1, make_link("l", 0, 1e15), make_link("o", 0, 1e15));
}

std::vector<std::vector<int>> replicas_of(const plan::Plan& plan) {
  std::vector<std::vector<int>> replicas;
  for (const plan::Role& role : plan.roles) replicas.push_back(role.replicas);
  return replicas;
}

}  // namespace

TEST_CASE("replicas whose neighbours differ are told apart, others are not", "[split_roles_test]") {
  // Two equal replicas, of which one sends to a fast and one to a slow device.
  const auto mixed =
      make_plan(graph(), resources(), {{0, 3, {{0, 0}, {0, 1}}, {2, 2}}, {3, 5, {{0, 2}, {1, 0}}, {2, 2}}}, 4);
  REQUIRE(replicas_of(mixed) == std::vector<std::vector<int>>{{0, 1}, {0}, {1}});
  const SplitRoles split = split_roles(mixed);
  CHECK(replicas_of(split.plan) == std::vector<std::vector<int>>{{0}, {1}, {0}, {1}});
  CHECK(split.of == std::vector<int>{0, 0, 1, 2});
  CHECK(split.first == std::vector<int>{0, 2, 3});
  CHECK(split.plan.roles[1].actions == mixed.roles[0].actions);

  // The difference goes on to a stage that does not touch the slow device.
  const auto far = make_plan(
      graph(), resources(),
      {{0, 2, {{0, 0}, {0, 1}}, {1, 1}}, {2, 3, {{0, 2}, {0, 3}}, {1, 1}}, {3, 5, {{1, 0}, {1, 1}}, {1, 1}}}, 2);
  CHECK(split_roles(far).plan == far);
  const auto further = make_plan(
      graph(), resources(),
      {{0, 2, {{0, 0}, {0, 1}}, {2, 2}}, {2, 3, {{0, 2}, {0, 3}}, {2, 2}}, {3, 5, {{1, 0}, {1, 1}}, {3, 1}}}, 2);
  CHECK(replicas_of(split_roles(further).plan) == std::vector<std::vector<int>>{{0}, {1}, {0}, {1}, {0}, {1}});

  // Every replica exchanges with the same kinds: nothing to tell.
  const auto alike =
      make_plan(graph(), resources(),
                {{0, 3, {{0, 0}, {0, 1}}, {4, 4}}, {3, 5, {{0, 2}, {1, 0}, {0, 3}, {1, 1}}, {3, 1, 3, 1}}}, 2);
  CHECK(split_roles(alike).plan == alike);
}

TEST_CASE("a step waits for the slow neighbour of one of two equal replicas", "[split_roles_test]") {
  const auto cluster = resources();
  FakeCost cost(graph(), cluster);
  cost.forward = {0, 1, 1, 1, 0};  // seconds a sample; backward twice that
  cost.speed = {1.0, 0.25};
  const auto step = [&](std::vector<plan::DeviceId> last) {
    const auto plan =
        make_plan(graph(), cluster, {{0, 3, {{0, 0}, {0, 1}}, {1, 1}}, {3, 5, std::move(last), {1, 1}}}, 1);
    return simulate(cost, plan)->estimate.step.value;
  };
  // One micro-batch: F of two blocks, F and B of one block on the last stage, B of two blocks.
  CHECK(step({{0, 2}, {0, 3}}) == Approx(2 + 3 + 4));
  CHECK(step({{1, 0}, {1, 1}}) == Approx(2 + 12 + 4));
  CHECK(step({{0, 2}, {1, 0}}) == Approx(2 + 12 + 4));
  CHECK(step({{1, 0}, {0, 2}}) == Approx(2 + 12 + 4));
}
