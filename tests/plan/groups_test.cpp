#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("shards are reduced over replicas and parts of the sequence, by tensor position", "[groups]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({8}), {.cuts = {}, .samples = {{3, 3}}});
  std::int64_t index = 0;
  for (Replica& replica : plan.stages[0].replicas) {
    replica.tensor = replica.context = 2;
    replica.devices.clear();
    for (int d = 0; d < 4; ++d) replica.devices.push_back({0, index++});
  }
  std::vector<std::vector<int>> found;
  for (const Group& group : make_groups(plan, graph))
    if (group.kind == GroupKind::StageReplicas) found.push_back(group.ranks);
  CHECK(found == std::vector<std::vector<int>>{{0, 2, 4, 6}, {1, 3, 5, 7}});
  const auto groups = make_groups(plan, graph);
  const Action reduce{ActionKind::ReduceGradient};
  CHECK(group_of(plan, groups, 0, reduce, 3) == group_of(plan, groups, 0, reduce, 1));
  CHECK(group_of(plan, groups, 0, reduce, 2) == group_of(plan, groups, 0, reduce, 0));
}

TEST_CASE("one replica in two parts of the sequence has gradients to reduce", "[groups]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({2}), {.cuts = {}, .samples = {{3}}});
  CHECK(plan.stages[0].bucket_starts.empty());
  plan.stages[0].replicas[0].context = 2;
  plan.stages[0].replicas[0].devices = {{0, 0}, {0, 1}};
  fill_roles(plan, graph, Bytes(1));
  CHECK_FALSE(plan.stages[0].bucket_starts.empty());
}

TEST_CASE("groups come in one order and single ranks make none but the world", "[groups]") {
  const model::ModelGraph graph = make_chain_graph();
  // Stages of 2, 1 and 3 replicas: ranks 0 1 | 2 | 3 4 5.
  const Plan plan = make_plan(graph, make_cpu_cluster({6}), {.cuts = {2, 4}, .samples = {{3, 3}, {6}, {1, 2, 3}}});
  const auto groups = make_groups(plan, graph);
  const std::vector<std::tuple<GroupKind, int, std::vector<int>>> expected{
      {GroupKind::World, 0, {0, 1, 2, 3, 4, 5}},    {GroupKind::StageReplicas, 0, {0, 1}},
      {GroupKind::StageReplicas, 2, {3, 4, 5}},     {GroupKind::ActivationEdge, 0, {0, 1, 2}},
      {GroupKind::ActivationEdge, 1, {2, 3, 4, 5}}, {GroupKind::GradientEdge, 0, {0, 1, 2}},
      {GroupKind::GradientEdge, 1, {2, 3, 4, 5}},   {GroupKind::Tied, 0, {0, 1, 3, 4, 5}}};
  REQUIRE(groups.size() == expected.size());
  for (std::size_t i = 0; i < groups.size(); ++i)
    CHECK(std::tuple(groups[i].kind, groups[i].index, groups[i].ranks) == expected[i]);

  CHECK(group_of(plan, groups, 0, {ActionKind::SendActivation, 0}) == 3);
  CHECK(group_of(plan, groups, 1, {ActionKind::ReceiveActivation, 0}) == 3);
  CHECK(group_of(plan, groups, 1, {ActionKind::SendActivation, 0}) == 4);
  CHECK(group_of(plan, groups, 1, {ActionKind::SendGradient, 0}) == 5);
  CHECK(group_of(plan, groups, 0, {ActionKind::ReceiveGradient, 0}) == 5);
  CHECK(group_of(plan, groups, 2, {ActionKind::ReduceGradient, -1, 4, 6}) == 2);
  CHECK(group_of(plan, groups, 2, {ActionKind::ReduceLossCount}) == 2);
  CHECK(group_of(plan, groups, 1, {ActionKind::ReduceGradient, -1, 2, 4}) == -1);
  CHECK(group_of(plan, groups, 0, {ActionKind::ReduceTied, -1, -1, -1, 0}) == 7);
  CHECK(group_of(plan, groups, 2, {ActionKind::ReduceTied, -1, -1, -1, 0}) == 7);
  CHECK(group_of(plan, groups, 1, {ActionKind::ReduceNorm}) == 0);
  CHECK(group_of(plan, groups, 1, {ActionKind::Optimizer}) == -1);

  const Plan single = make_plan(graph, make_cpu_cluster({1}), {});
  REQUIRE(make_groups(single, graph).size() == 1);
  CHECK(make_groups(single, graph)[0].ranks == std::vector<int>{0});
}

TEST_CASE("stages with chunks have edges back: from the last to the first, or up the V", "[groups]") {
  const model::ModelGraph graph = make_chain_graph({.num_layers = 4, .tied = false});
  PlanOptions options{.cuts = {1, 2, 3, 4, 5}, .samples = {{4}, {2, 2}, {4}}, .num_chunks = 2};
  options.schedule = ScheduleKind::Interleaved;
  const Plan ring = make_plan(graph, make_cpu_cluster({4}), options);
  CHECK(pipeline_edges(ring) == std::vector<Edge>{{0, 0, 1}, {1, 1, 2}, {2, 2, 0}});
  const auto groups = make_groups(ring, graph);
  CHECK(groups[static_cast<std::size_t>(group_of(ring, groups, 2, {ActionKind::SendActivation, 0}))].ranks ==
        std::vector<int>{0, 3});
  const Action first_chunk{ActionKind::SendActivation, 0}, second_chunk{ActionKind::SendActivation, 0, -1, -1, -1, 1};
  CHECK(transfers_of(ring, 3, first_chunk) == std::vector<Transfer>{{0, 0, 4}});
  CHECK(transfers_of(ring, 3, second_chunk).empty());
  CHECK(edge_of(ring, 0, {ActionKind::SendGradient, 0, -1, -1, -1, 1}) == Edge{2, 2, 0});
  CHECK_FALSE(has_edge_in(ring, 0, 0));
  CHECK(has_edge_in(ring, 0, 1));
  CHECK_FALSE(has_edge_out(ring, 2, 1));

  options.schedule = ScheduleKind::ZeroBubbleV;
  const Plan v = make_plan(graph, make_cpu_cluster({4}), options);
  CHECK(pipeline_edges(v) == std::vector<Edge>{{0, 0, 1}, {1, 1, 2}, {3, 1, 0}, {4, 2, 1}});
  CHECK(transfers_of(v, 1, first_chunk) == std::vector<Transfer>{{3, 0, 2}});
  CHECK(transfers_of(v, 1, second_chunk) == std::vector<Transfer>{{0, 0, 2}});
  CHECK_FALSE(has_edge_out(v, 2, 0));  // the turn
  CHECK_FALSE(has_edge_in(v, 2, 1));
  const auto up = make_groups(v, graph);
  const int group = group_of(v, up, 0, {ActionKind::ReceiveActivation, 0, -1, -1, -1, 1});
  CHECK(up[static_cast<std::size_t>(group)].index == 3);
  CHECK(up[static_cast<std::size_t>(group)].ranks == std::vector<int>{0, 1, 2});
}

TEST_CASE("equal ranges have one peer", "[groups]") {
  const Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}), {.cuts = {3}, .samples = {{3, 1}, {3, 1}}});
  CHECK(transfers_to_next(plan, 0) == std::vector<Transfer>{{2, 0, 3}});
  CHECK(transfers_to_next(plan, 1) == std::vector<Transfer>{{3, 0, 1}});
  CHECK(transfers_from_previous(plan, 3) == std::vector<Transfer>{{1, 0, 1}});
  CHECK(transfers_from_previous(plan, 0).empty());
  CHECK(transfers_to_next(plan, 3).empty());
}

TEST_CASE("unequal replica counts exchange intersections", "[groups]") {
  // Ranges 0-2 2-4 4-6 against 0-3 3-6.
  const Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({5}), {.cuts = {3}, .samples = {{2, 2, 2}, {3, 3}}});
  CHECK(transfers_to_next(plan, 0) == std::vector<Transfer>{{3, 0, 2}});
  CHECK(transfers_to_next(plan, 1) == std::vector<Transfer>{{3, 0, 1}, {4, 1, 1}});
  CHECK(transfers_to_next(plan, 2) == std::vector<Transfer>{{4, 0, 2}});
  CHECK(transfers_from_previous(plan, 3) == std::vector<Transfer>{{0, 0, 2}, {1, 2, 1}});
  CHECK(transfers_from_previous(plan, 4) == std::vector<Transfer>{{1, 0, 1}, {2, 1, 2}});
}

TEST_CASE("replicas of several devices reduce position by position", "[groups]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({8}), {.samples = {{3, 3}}});
  std::int64_t device = 0;
  for (Replica& replica : plan.stages[0].replicas) {
    replica.tensor = 2;
    replica.devices = {{0, device}, {0, device + 1}};
    device += 2;
  }
  const auto groups = make_groups(plan, graph);
  REQUIRE(groups.size() == 3);
  CHECK(groups[1].ranks == std::vector<int>{0, 2});
  CHECK(groups[2].ranks == std::vector<int>{1, 3});
  CHECK(group_of(plan, groups, 0, {ActionKind::ReduceGradient, -1, 0, 6}, 0) == 1);
  CHECK(group_of(plan, groups, 0, {ActionKind::ReduceGradient, -1, 0, 6}, 1) == 2);
}

TEST_CASE("replicas of unequal meshes count the loss on their first devices", "[groups]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({8}), {.samples = {{3, 3}}});
  plan.stages[0].replicas[0].tensor = 3;
  plan.stages[0].replicas[0].devices = {{0, 0}, {0, 1}, {0, 2}};
  plan.stages[0].replicas[1].devices = {{0, 3}};
  const auto groups = make_groups(plan, graph);
  REQUIRE(groups.size() == 2);
  CHECK(groups[1].ranks == std::vector<int>{0, 3});
  CHECK(group_of(plan, groups, 0, {ActionKind::ReduceLossCount}, 0) == 1);
  CHECK(group_of(plan, groups, 0, {ActionKind::ReduceLossCount}, 2) == -1);
}

TEST_CASE("a shard meets the shards of the other mesh that it is made of", "[groups]") {
  Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({8}), {.cuts = {3}, .samples = {{6}, {6}}});
  plan.stages[0].replicas[0].tensor = 2;
  plan.stages[0].replicas[0].devices = {{0, 0}, {0, 1}};
  plan.stages[1].replicas[0].tensor = 4;
  plan.stages[1].replicas[0].devices = {{0, 2}, {0, 3}, {0, 4}, {0, 5}};
  CHECK(transfers_to_next(plan, 0) == std::vector<Transfer>{{2, 0, 6, 4}, {3, 0, 6, 4}});
  CHECK(transfers_to_next(plan, 1) == std::vector<Transfer>{{4, 0, 6, 4}, {5, 0, 6, 4}});
  CHECK(transfers_from_previous(plan, 3) == std::vector<Transfer>{{0, 0, 6, 4}});
  CHECK(transfers_from_previous(plan, 4) == std::vector<Transfer>{{1, 0, 6, 4}});
}

}  // namespace
}  // namespace coxswain::plan
