// What each action of a role takes and moves.
#include "cost_model/action_times.h"

#include "cost_model/mesh_times.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("actions take their blocks' times, overhead and recompute", "[action_times_test]") {
  const model::ModelGraph graph = make_chain(3, 8, true);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 10, 100, 1000};
  cost.action_overhead = 0.5;
  cost.optimizer_per_parameter = 1;
  auto plan = make_plan(graph, resources, {{0, 3, {{0, 0}}, {2}}, {3, 5, {{0, 1}}, {2}}}, 1);
  plan.stages[0].recompute[2] = plan::Recompute::Full;
  const auto tied = plan::tied_parameters(plan, graph);
  const ActionTimes first(cost, plan, plan.roles[0], tied), last(cost, plan, plan.roles[1], tied);

  using plan::ActionKind;
  constexpr Ticks kSecond = 1'000'000'000;
  CHECK(first.compute({ActionKind::Forward, 0, 0, 3}).forward == 22 * kSecond + kSecond / 2);
  const ComputeTicks backward = first.compute({ActionKind::Backward, 0, 0, 3});
  CHECK(backward.backward == 44 * kSecond + kSecond / 2);
  CHECK(backward.recompute == 20 * kSecond);
  CHECK(first.compute({ActionKind::Backward, 0, 0, 2}).backward == 4 * kSecond + kSecond / 2);
  const ComputeTicks input = first.compute({ActionKind::BackwardInput, 0, 0, 3}),
                     weight = first.compute({ActionKind::BackwardWeight, 0, 0, 3});
  // C28: one action more, and what is recomputed goes with I.
  CHECK(input.backward == 22 * kSecond + kSecond / 2);
  CHECK(weight.backward == 22 * kSecond + kSecond / 2);
  CHECK(input.recompute == 20 * kSecond);
  CHECK(weight.recompute == 0);
  CHECK(first.compute({ActionKind::Optimizer}).optimizer == 128 * kSecond + kSecond / 2);  // layers 0 and 1
  CHECK(last.compute({ActionKind::Optimizer}).optimizer ==
        128 * kSecond + kSecond / 2);  // layer 2 and its own copy of layer 0

  CHECK(first.elements({ActionKind::ReduceGradient, -1, 0, 3}) == 64);  // layer 1; layer 0 is tied across stages
  CHECK(last.elements({ActionKind::ReduceTied, -1, -1, -1, 0}) == 64);
  CHECK(first.edge_bytes({ActionKind::SendActivation, 0}, 2).value == 2 * 8 * 4);
  CHECK(last.edge_bytes({ActionKind::SendGradient, 0}, 1).value == 8 * 4);
}

TEST_CASE("blocks alike in a row take what each takes by itself", "[action_times_test]") {
  // The epilogue multiplies by a weight from the middle of the layers, which ZeRO then does not split.
  model::ModelGraph graph = make_chain(6, 8, true);
  graph.ops[static_cast<std::size_t>(graph.blocks.back().first_op)].arguments[1].value =
      model::ValueRef{graph.parameters[4].value};
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 1e-6, 1e6), make_link("o", 1e-5, 1e5));
  const auto cost = make_cost_model(graph, resources, nullptr);
  auto plan = make_plan(graph, resources, {{0, graph.num_blocks(), {{0, 0}, {0, 1}}, {2, 2}}}, 1);
  plan::Stage& stage = plan.stages[0];
  stage.recompute[3] = plan::Recompute::Full;
  for (const int zero : {0, 3}) {
    stage.zero_stage = zero;
    const ActionTimes times(*cost, plan, plan.roles[0], plan::tied_parameters(plan, graph));
    const Mesh mesh = make_mesh(stage, 0);
    for (int block = 0; block < graph.num_blocks(); ++block) {
      const MeshTicks alone = estimate_block_on_mesh(
          *cost, {block, 0, 2, plan.precision, 1, 1, 1, stage.recompute[static_cast<std::size_t>(block)]}, mesh);
      const ComputeTicks backward = times.compute({plan::ActionKind::Backward, 0, block, block + 1});
      CHECK(times.compute({plan::ActionKind::Forward, 0, block, block + 1}).forward == alone.forward);
      CHECK(backward.backward == alone.backward);
      CHECK(backward.recompute == alone.recompute);
    }
  }
}
