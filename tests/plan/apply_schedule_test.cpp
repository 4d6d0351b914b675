#include "plan/program.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

CsvSchedule read(const std::string& csv) {
  auto schedule = read_schedule_csv(csv);
  REQUIRE(schedule);
  return *schedule;
}

/// Two stages of one replica; one micro-batch has two samples.
Plan two_stages(const model::ModelGraph& graph, int count, int credits = 1) {
  return make_plan(graph, make_cpu_cluster({4}),
                   {.cuts = {2}, .samples = {{2}, {1, 1}}, .count = count, .receive_credits = credits});
}

std::vector<std::string> receives(const Plan& plan, int stage, ActionKind kind) {
  std::vector<std::string> texts;
  for (const Role& role : plan.roles) {
    if (role.stage != stage || !texts.empty()) continue;
    for (const Action& action : role.actions)
      if (action.kind == kind) texts.push_back(to_text(action));
  }
  return texts;
}

TEST_CASE("an order of our own kind gives our own roles", "[apply_schedule]") {
  const auto graph = make_chain_graph();
  const Plan ours = two_stages(graph, 3);
  Plan plan = ours;
  REQUIRE(apply_schedule(plan, graph, Bytes(1), read(to_schedule_csv(ours))));
  CHECK(plan == ours);
}

TEST_CASE("a custom order is valid, and reads back from the plan's own text", "[apply_schedule]") {
  const auto graph = make_chain_graph();
  const CsvSchedule schedule = read("0F0,0F1,0F2,0B1,0I0,0B2,0W0\n1F0,1F1,1B1,1B0,1F2,1B2\n");
  CHECK(schedule.kind == ScheduleKind::Custom);
  Plan plan = two_stages(graph, 3);
  REQUIRE(apply_schedule(plan, graph, Bytes(1), schedule));
  const auto resources = make_cpu_cluster({4});
  CHECK(validate(plan, graph, resources).empty());
  const auto json = plan_from_json(to_json(plan));
  REQUIRE(json);
  CHECK(*json == plan);
  CHECK(read(to_schedule_csv(plan)).stages == schedule.stages);
  // A list that lacks a half is told apart from one whose backward is whole.
  auto& actions = plan.roles.front().actions;
  const auto weight = std::find_if(actions.begin(), actions.end(),
                                   [](const Action& a) { return a.kind == ActionKind::BackwardWeight; });
  REQUIRE(weight != actions.end());
  actions.erase(weight);
  const auto problems = validate(plan, graph, resources);
  REQUIRE_FALSE(problems.empty());
  CHECK(problems.front().message.substr(0, 3) == "V23");
}

TEST_CASE("receives take the order of the sends, and buffers are added until no list waits", "[apply_schedule]") {
  const auto graph = make_chain_graph();
  // Stage 1 wants the last micro-batch first: all three have to be there.
  const CsvSchedule schedule = read("0F0,0F1,0F2,0B2,0B1,0B0\n1F2,1F1,1F0,1B2,1B1,1B0\n");
  Plan plan = two_stages(graph, 3);
  REQUIRE(apply_schedule(plan, graph, Bytes(1), schedule));
  CHECK(plan.receive_credits == 3);
  CHECK(receives(plan, 1, ActionKind::ReceiveActivation) == std::vector<std::string>{"RECV_F0", "RECV_F1", "RECV_F2"});
  CHECK(receives(plan, 0, ActionKind::ReceiveGradient) == std::vector<std::string>{"RECV_B2", "RECV_B1", "RECV_B0"});
  CHECK(validate(plan, graph, make_cpu_cluster({4})).empty());
}

TEST_CASE("evaluation goes around the loop in rounds, whatever the order of training", "[apply_schedule]") {
  const auto graph = make_chain_graph({.num_layers = 2, .tied = false});
  Plan plan = make_plan(
      graph, make_cpu_cluster({2}),
      {.cuts = {1, 2, 3}, .samples = {{1}, {1}}, .count = 2, .schedule = ScheduleKind::Interleaved, .num_chunks = 2});
  REQUIRE(apply_schedule(plan, graph, Bytes(1),
                         read("0F1,0F0,2F1,2F0,2B0,2B1,0B0,0B1\n1F1,1F0,3F1,3F0,3B0,3B1,1B0,1B1\n")));
  CHECK(plan.schedule == ScheduleKind::Custom);
  std::vector<std::string> texts;
  for (const Action& action : evaluation_actions(plan, 0)) texts.push_back(to_text(action));
  CHECK(texts == std::vector<std::string>{"F0[0,1)", "SEND_F0", "F1[0,1)", "SEND_F1", "RECV_F0.1", "F0.1[2,3)",
                                          "SEND_F0.1", "RECV_F1.1", "F1.1[2,3)", "SEND_F1.1", "REDUCE_NORM"});
}

}  // namespace
}  // namespace coxswain::plan
