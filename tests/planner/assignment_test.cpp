// The best matching against all permutations; the devices of a plan exchanged without changing what it costs.
#include "planner/assignment.h"

#include <algorithm>
#include <numeric>

#include "plan/program.h"
#include "tests/planner/random_moves.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

std::int64_t kept(const FakeCost& cost, const plan::Plan& running, const cluster::DeviceMap& devices,
                  const plan::Plan& next) {
  return estimate_move(cost, running, devices, next).bytes_kept.value;
}

plan::Plan with_roles(plan::Plan plan, const model::ModelGraph& graph) {
  plan::fill_roles(plan, graph, Bytes(std::int64_t{1} << 40));
  return plan;
}

}  // namespace

TEST_CASE("the matching is the best of all permutations", "[assignment_test]") {
  std::mt19937 random(2);
  for (int round = 0; round < 60; ++round) {
    const int n = std::uniform_int_distribution<int>(1, 6)(random);
    std::vector<std::vector<std::int64_t>> value(static_cast<std::size_t>(n));
    for (auto& row : value) {
      for (int i = 0; i < n; ++i) row.push_back(std::uniform_int_distribution<int>(-3, 9)(random));
    }
    const auto sum = [&](const std::vector<int>& columns) {
      std::int64_t total = 0;
      for (std::size_t i = 0; i < columns.size(); ++i) total += value[i][static_cast<std::size_t>(columns[i])];
      return total;
    };
    std::vector<int> columns(static_cast<std::size_t>(n));
    std::iota(columns.begin(), columns.end(), 0);
    std::int64_t best = sum(columns);
    while (std::next_permutation(columns.begin(), columns.end())) best = std::max(best, sum(columns));
    auto found = assign_most(value);
    CHECK(sum(found) == best);
    std::sort(found.begin(), found.end());
    std::iota(columns.begin(), columns.end(), 0);
    CHECK(found == columns);
  }
}

TEST_CASE("devices keep what they hold, and the plan costs what it did", "[assignment_test]") {
  const auto resources = make_moving_cluster();
  const auto devices = cluster::identity_map(resources);
  std::mt19937 random(4);
  int better = 0;
  for (int round = 0; round < 40; ++round) {
    const model::ModelGraph graph = make_moving_graph(round % 2 == 0);
    FakeCost cost(graph, resources);
    cost.forward[2] = 0.5;
    const auto running = with_roles(random_sharded_plan(random, graph.num_blocks(), all_devices(resources)), graph);
    const auto next = with_roles(random_sharded_plan(random, graph.num_blocks(), all_devices(resources)), graph);
    const auto assigned = assign_devices(cost, running, devices, next);
    CAPTURE(round);
    const std::int64_t before = kept(cost, running, devices, next), after = kept(cost, running, devices, assigned);
    better += after > before ? 1 : 0;
    const auto step = cost_model::simulate(cost, next), step_assigned = cost_model::simulate(cost, assigned);
    REQUIRE(step.has_value());
    REQUIRE(step_assigned.has_value());
    CHECK(step_assigned->estimate.step.value == step->estimate.step.value);
    // Every device once.
    std::vector<plan::DeviceId> used;
    for (const plan::Stage& stage : assigned.stages) {
      for (const plan::Replica& replica : stage.replicas)
        used.insert(used.end(), replica.devices.begin(), replica.devices.end());
    }
    std::sort(used.begin(), used.end());
    CHECK(std::adjacent_find(used.begin(), used.end()) == used.end());
    CHECK(used.size() == static_cast<std::size_t>(plan::num_ranks(next)));
  }
  CHECK(better > 15);
}

TEST_CASE("equal devices that changed places go back", "[assignment_test]") {
  const model::ModelGraph graph = make_chain(4, 12);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  const auto devices = cluster::identity_map(resources);
  const auto on = [&](std::vector<plan::DeviceId> a, std::vector<plan::DeviceId> b, std::vector<plan::DeviceId> c) {
    return make_plan(graph, resources, {{0, 2, a, {2, 2}}, {2, 4, b, {2, 2}}, {4, 6, c, {2, 2}}}, 1);
  };
  const auto running = on({{0, 0}, {0, 3}}, {{0, 1}, {0, 4}}, {{0, 2}, {0, 5}});
  // Inside both nodes the stages stand on other devices, and the nodes are exchanged.
  const auto shuffled = on({{0, 5}, {0, 1}}, {{0, 3}, {0, 2}}, {{0, 4}, {0, 0}});
  const auto assigned = assign_devices(cost, running, devices, shuffled);
  CHECK(kept(cost, running, devices, assigned) == kept(cost, running, devices, shuffled) + 12 * 4 * 2 * 144);
  CHECK(estimate_move(cost, running, devices, assigned).bytes_moved() == Bytes(0));
}

TEST_CASE("many nodes are matched kind by kind", "[assignment_test]") {
  // 60 nodes: the first half holds blocks [0,3), the other half the rest; the next plan has them the other way round.
  const model::ModelGraph graph = make_chain(4, 12);
  const auto resources =
      make_cluster({make_device("a", 1 << 30)}, {1}, 60, make_link("inner", 1e-6, 1000), make_link("all", 1e-4, 10));
  const FakeCost cost(graph, resources);
  const auto devices = cluster::identity_map(resources);
  StageSpec low{0, 3, {}, {}}, high{3, 6, {}, {}};
  for (std::int64_t i = 0; i < 30; ++i) {
    low.devices.push_back({0, i});
    high.devices.push_back({0, 30 + i});
  }
  low.samples = high.samples = std::vector<std::int64_t>(30, 1);
  auto running = make_plan(graph, resources, {low, high}, 1);
  for (plan::Stage& stage : running.stages) stage.zero_stage = 3;
  auto next = running;
  for (std::size_t r = 0; r < 30; ++r)
    std::swap(next.stages[0].replicas[r].devices, next.stages[1].replicas[29 - r].devices);
  const auto assigned = assign_devices(cost, running, devices, next);
  CHECK(is_same_plan(running, devices, assigned));
}
