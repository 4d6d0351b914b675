// Slices and parts of the state, against fractions worked out by hand.
#include "planner/state_slices.h"

#include "tests/planner/random_moves.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("slices are united and subtracted", "[state_slices_test]") {
  CHECK(unite({{0.5, 0.75}, {0, 0.25}, {0.25, 0.5}, {0.9, 0.9}}) == std::vector<Slice>{{0, 0.75}});
  CHECK(subtract({{0, 1}}, {{0.25, 0.5}, {0.75, 1}}) == std::vector<Slice>{{0, 0.25}, {0.5, 0.75}});
  CHECK(subtract({{0, 0.25}, {0.5, 1}}, {{0.1, 0.6}}) == std::vector<Slice>{{0, 0.1}, {0.6, 1}});
  CHECK(subtract({{0, 1}}, {}) == std::vector<Slice>{{0, 1}});
  CHECK(length_of({{0, 0.25}, {0.5, 1}}) == 0.75);
  CHECK(intersect({0, 0.5}, {0.5, 1}).length() == 0);
}

TEST_CASE("C70: tensor axis outside, ZeRO inside it", "[state_slices_test]") {
  plan::Stage stage;
  stage.replicas.resize(3);
  for (plan::Replica& replica : stage.replicas) replica.tensor = 2;
  const Strip sharded{true, false}, vector{false, false};
  CHECK(slice_of(stage, 2, 1, sharded, SplitFrom::Optimizer) == Slice{0.5, 1});  // no ZeRO yet
  stage.zero_stage = 1;
  CHECK(slice_of(stage, 2, 1, sharded, SplitFrom::Optimizer) == Slice{5.0 / 6, 1});
  CHECK(slice_of(stage, 0, 1, sharded, SplitFrom::Optimizer) == Slice{3.0 / 6, 4.0 / 6});
  CHECK(slice_of(stage, 1, 1, vector, SplitFrom::Optimizer) == Slice{1.0 / 3, 2.0 / 3});  // a vector: whole on the axis
  CHECK(slice_of(stage, 1, 1, sharded, SplitFrom::Parameters) == Slice{0.5, 1});          // from ZeRO 3 on
  CHECK(slice_of(stage, 1, 1, vector, SplitFrom::Never) == Slice{0, 1});
  stage.zero_stage = 3;
  CHECK(slice_of(stage, 1, 0, sharded, SplitFrom::Parameters) == Slice{1.0 / 6, 2.0 / 6});
}

TEST_CASE("C70: the context axis holds the same, the expert axis other experts", "[state_slices_test]") {
  plan::Stage stage;
  stage.replicas.resize(4);
  for (plan::Replica& replica : stage.replicas) {
    replica.context = 2;
    replica.expert = 2;
  }
  const Strip experts{false, true}, dense{false, false};
  // Replicas 0 and 2 hold the first half of the experts, 1 and 3 the second.
  CHECK(slice_of(stage, 2, 1, experts, SplitFrom::Optimizer) == Slice{0, 0.5});
  CHECK(slice_of(stage, 3, 0, experts, SplitFrom::Optimizer) == Slice{0.5, 1});
  CHECK(slice_of(stage, 3, 0, dense, SplitFrom::Optimizer) == Slice{0, 1});
  // ZeRO over all 8 devices, of experts over the 4 that hold the same.
  stage.zero_stage = 1;
  CHECK(slice_of(stage, 3, 1, dense, SplitFrom::Optimizer) == Slice{7.0 / 8, 1});
  CHECK(slice_of(stage, 2, 1, experts, SplitFrom::Optimizer) == Slice{3.0 / 8, 4.0 / 8});
  CHECK(slice_of(stage, 1, 0, experts, SplitFrom::Optimizer) == Slice{4.0 / 8, 5.0 / 8});
}

TEST_CASE("parts add up to the state that C14 counts", "[state_slices_test]") {
  const model::ModelGraph graph = make_moving_graph(true);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    const auto running = random_sharded_plan(random, graph.num_blocks(), all_devices(resources));
    auto next = random_sharded_plan(random, graph.num_blocks(), all_devices(resources));
    double parameters = 0, optimizer = 0;
    for (const StatePart& part : make_state_parts(cost, running, next))
      (part.split == SplitFrom::Optimizer ? optimizer : parameters) += part.bytes[0] + part.bytes[1];
    CHECK(parameters == 4.0 * 4 * 144);
    CHECK(optimizer == 8.0 * 4 * 144);
    // Masters under bfloat16, beside two bytes to compute with.
    next.precision = plan::Precision::BFloat16;
    parameters = optimizer = 0;
    for (const StatePart& part : make_state_parts(cost, running, next))
      (part.split == SplitFrom::Optimizer ? optimizer : parameters) += part.bytes[0] + part.bytes[1];
    CHECK(parameters == 2.0 * 4 * 144);
    CHECK(optimizer == 12.0 * 4 * 144);
  }
}

TEST_CASE("C71: a device that keeps its place keeps everything, another place what both hold", "[state_slices_test]") {
  const model::ModelGraph graph = make_chain(2, 12);
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  const auto running = make_plan(graph, resources, {{0, 2, {{0, 0}}, {4}}, {2, 4, {{0, 1}}, {4}}}, 1);
  const auto next = make_plan(graph, resources, {{0, 4, {{0, 0}, {0, 1}}, {2, 2}}}, 1);
  CHECK(KeptBytes(cost, running, running)({0, 0, 0}, {0, 0, 0}) == 12.0 * 144);
  CHECK(KeptBytes(cost, running, running)({0, 0, 0}, {1, 0, 0}) == 0);
  CHECK(KeptBytes(cost, running, next)({0, 0, 0}, {0, 1, 0}) == 12.0 * 144);
  auto sharded = next;
  sharded.stages[0].zero_stage = 1;
  CHECK(KeptBytes(cost, running, sharded)({1, 0, 0}, {0, 1, 0}) == (4.0 + 8.0 / 2) * 144);
}

TEST_CASE("C70: every user of a tied parameter has its moments, a new one needs them", "[state_slices_test]") {
  const model::ModelGraph graph = make_chain(2, 12, true);  // the epilogue uses the first layer's parameter
  const auto resources = make_moving_cluster();
  const FakeCost cost(graph, resources);
  const auto one = make_plan(graph, resources, {{0, 4, {{0, 0}}, {4}}}, 1);
  const auto two = make_plan(graph, resources, {{0, 2, {{0, 0}}, {4}}, {2, 4, {{0, 1}}, {4}}}, 1);
  CHECK(KeptBytes(cost, two, two)({1, 0, 0}, {1, 0, 0}) == 2 * 12.0 * 144);
  CHECK(KeptBytes(cost, two, two)({0, 0, 0}, {1, 0, 0}) == 12.0 * 144);  // a copy is as good as the other
  CHECK(KeptBytes(cost, one, two)({0, 0, 0}, {1, 0, 0}) == 2 * 12.0 * 144);
}
