// Lists of stages with an expert axis: what is reduced over whom, and who must come to a compute action.
#include "plan/experts.h"
#include "plan/program.h"
#include "tests/support/mixture_graph.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Plan spread(const model::ModelGraph& graph, const std::vector<std::int64_t>& samples, int expert, int zero_stage = 0) {
  Plan plan = make_plan(graph, make_cpu_cluster({8}), {.samples = {samples}, .count = 2});
  for (Replica& replica : plan.stages[0].replicas) replica.expert = expert;
  plan.stages[0].zero_stage = zero_stage;
  fill_roles(plan, graph, Bytes(1));
  return plan;
}

std::string text_of(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) text += (text.empty() ? "" : " ") + to_text(action);
  return text;
}

std::size_t index_of(const std::vector<Action>& actions, const std::string& text) {
  for (std::size_t i = 0; i < actions.size(); ++i)
    if (to_text(actions[i]) == text) return i;
  FAIL(text);
  return 0;
}

}  // namespace

TEST_CASE("tables of a bucket are reduced behind it, over those who hold the same experts", "[experts]") {
  const model::ModelGraph graph = make_mixture_graph();
  CHECK(text_of(spread(graph, {2, 2, 2, 2}, 2).roles[0].actions) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) B0[0,4) F1[0,4) B1[3,4) REDUCE_GRAD[3,4) B1[2,3) REDUCE_GRAD[2,3) "
        "REDUCE_EXPERTS[2,3) B1[1,2) REDUCE_GRAD[1,2) REDUCE_EXPERTS[1,2) B1[0,1) REDUCE_GRAD[0,1) REDUCE_NORM "
        "OPTIMIZER");
  // Nobody else holds them.
  CHECK(text_of(spread(graph, {2, 2}, 2).roles[0].actions).find("REDUCE_EXPERTS") == std::string::npos);
  CHECK(text_of(spread(graph, {2, 2}, 1).roles[0].actions).find("REDUCE_EXPERTS") == std::string::npos);
  CHECK(text_of(spread(graph, {2, 2, 2, 2}, 4, 3).roles[0].actions).find("REDUCE_EXPERTS") == std::string::npos);
}

TEST_CASE("a reduction of tables waits for the backward of its blocks, and the norm for it", "[experts]") {
  const model::ModelGraph graph = make_mixture_graph();
  const Plan plan = spread(graph, {2, 2, 2, 2}, 2);
  const RankProgram program = make_rank_program(plan, graph, 2);
  const auto at = [&](const std::string& text) { return static_cast<int>(index_of(program.actions, text)); };
  const auto& own = program.waits_for[static_cast<std::size_t>(at("REDUCE_EXPERTS[2,3)"))];
  CHECK(own == std::vector<int>{at("B1[2,3)")});
  const auto& norm = program.waits_for[static_cast<std::size_t>(at("REDUCE_NORM"))];
  CHECK(std::count(norm.begin(), norm.end(), at("REDUCE_EXPERTS[1,2)")) == 1);
  CHECK(make_groups(plan, graph).size() == 2);  // world, replicas: the others are of layout/mesh_groups.h
  CHECK(group_of(plan, make_groups(plan, graph), 0,
                 program.actions[index_of(program.actions, "REDUCE_EXPERTS[1,2)")]) == -1);
}

TEST_CASE("the text of a reduction of tables is read back, and has no micro-batch", "[experts]") {
  const Action action{ActionKind::ReduceExperts, -1, 2, 5};
  CHECK(to_text(action) == "REDUCE_EXPERTS[2,5)");
  CHECK(parse_action("REDUCE_EXPERTS[2,5)") == action);
  CHECK_FALSE(parse_action("REDUCE_EXPERTS"));
  CHECK_FALSE(parse_action("REDUCE_EXPERTS3[2,5)"));
  CHECK(stream_of(action.kind) == Stream::Reduce);
}

TEST_CASE("replicas between which rows travel must compute in one order", "[experts]") {
  const model::ModelGraph graph = make_mixture_graph();
  Plan plan = spread(graph, {1, 2, 3, 2}, 2);
  CHECK(check_order(plan, graph).empty());
  REQUIRE(plan.roles.size() == 3);  // 2 samples twice
  const std::vector<Action> all_ahead{
      {ActionKind::Forward, 0}, {ActionKind::Forward, 1}, {ActionKind::Backward, 0}, {ActionKind::Backward, 1}};
  Plan other = plan;
  fill_roles(other, graph, Bytes(1), {all_ahead});
  // Replica 2 alone runs ahead of replica 3.
  plan.roles[2].actions = other.roles[2].actions;
  const auto errors = check_order(plan, graph);
  REQUIRE_FALSE(errors.empty());
  CHECK(errors.front().message == "replicas that hold experts together are at different compute actions");
  // Without experts in common each may have its own order.
  for (Replica& replica : plan.stages[0].replicas) replica.expert = 1;
  for (Role& role : plan.roles)
    std::erase_if(role.actions, [](const Action& action) { return action.kind == ActionKind::ReduceExperts; });
  CHECK(check_order(plan, graph).empty());
}

}  // namespace coxswain::plan
