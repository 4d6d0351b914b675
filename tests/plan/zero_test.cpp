// Lists, waits and groups under ZeRO.
#include "plan/derive.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

std::string text_of(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) text += (text.empty() ? "" : " ") + to_text(action);
  return text;
}

/// Two replicas of blocks 0 to 3 (a prologue, two layers, an epilogue), without tied parameters unless told otherwise.
const model::ModelGraph& graph(bool tied = false) {
  static const model::ModelGraph own = make_chain_graph({.num_layers = 2, .tied = false}),
                                 shared = make_chain_graph({.num_layers = 2});
  return tied ? shared : own;
}

Plan zero_plan(int zero, PlanOptions options = {.samples = {{3, 1}}, .count = 2}, bool tied = false) {
  Plan plan = make_plan(graph(tied), make_cpu_cluster({4}), options);
  for (Stage& stage : plan.stages) stage.zero_stage = zero;
  fill_roles(plan, graph(tied), options.bucket_bytes);
  return plan;
}

std::string list_of(int zero, PlanOptions options = {.samples = {{3, 1}}, .count = 2}, bool tied = false) {
  return text_of(zero_plan(zero, options, tied).roles[0].actions);
}

std::string waits(const RankProgram& program, std::size_t index) {
  std::string result;
  for (const int on : program.waits_for[index])
    result += (result.empty() ? "" : " ") + to_text(program.actions[static_cast<std::size_t>(on)]);
  return result;
}

std::string waits(const RankProgram& program, const std::string& text, int nth = 0) {
  for (std::size_t i = 0; i < program.actions.size(); ++i) {
    if (to_text(program.actions[i]) == text && nth-- == 0) return waits(program, i);
  }
  FAIL("no action " << text);
  return "";
}

}  // namespace

TEST_CASE("ZeRO 1 reduces at the end and gathers behind the update", "[zero]") {
  CHECK(list_of(1) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) B0[0,4) F1[0,4) B1[3,4) REDUCE_GRAD[3,4) B1[2,3) REDUCE_GRAD[2,3) "
        "B1[1,2) REDUCE_GRAD[1,2) B1[0,1) REDUCE_GRAD[0,1) REDUCE_NORM OPTIMIZER GATHER_PARAM[3,4) GATHER_PARAM[2,3) "
        "GATHER_PARAM[1,2) GATHER_PARAM[0,1)");
}

TEST_CASE("ZeRO 2 reduces in every backward", "[zero]") {
  CHECK(list_of(2) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) "
        "B0[3,4) REDUCE_GRAD0[3,4) B0[2,3) REDUCE_GRAD0[2,3) B0[1,2) REDUCE_GRAD0[1,2) B0[0,1) REDUCE_GRAD0[0,1) "
        "F1[0,4) "
        "B1[3,4) REDUCE_GRAD1[3,4) B1[2,3) REDUCE_GRAD1[2,3) B1[1,2) REDUCE_GRAD1[1,2) B1[0,1) REDUCE_GRAD1[0,1) "
        "REDUCE_NORM OPTIMIZER GATHER_PARAM[3,4) GATHER_PARAM[2,3) GATHER_PARAM[1,2) GATHER_PARAM[0,1)");
}

TEST_CASE("ZeRO 3 gathers ahead of every block, once for two actions in a row on the same", "[zero]") {
  CHECK(list_of(3, {.samples = {{3, 1}}, .count = 1}) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT GATHER_PARAM0[0,1) F0[0,1) GATHER_PARAM0[1,2) F0[1,2) GATHER_PARAM0[2,3) F0[2,3) "
        "GATHER_PARAM0[3,4) F0[3,4) B0[3,4) REDUCE_GRAD0[3,4) GATHER_PARAM0[2,3) B0[2,3) REDUCE_GRAD0[2,3) "
        "GATHER_PARAM0[1,2) B0[1,2) REDUCE_GRAD0[1,2) GATHER_PARAM0[0,1) B0[0,1) REDUCE_GRAD0[0,1) REDUCE_NORM "
        "OPTIMIZER");
  CHECK(text_of(evaluation_actions(zero_plan(3, {.samples = {{3, 1}}, .count = 1}), 0)) ==
        "GATHER_PARAM0[0,1) F0[0,1) GATHER_PARAM0[1,2) F0[1,2) GATHER_PARAM0[2,3) F0[2,3) GATHER_PARAM0[3,4) F0[3,4) "
        "REDUCE_NORM");
}

TEST_CASE("under ZeRO 3 I and W both gather, W reduces", "[zero]") {
  const std::string list =
      list_of(3, {.cuts = {2}, .samples = {{4}, {2, 2}}, .count = 1, .schedule = ScheduleKind::ZeroBubbleH1});
  // The first stage has one replica: as without ZeRO.
  CHECK(list == "F0[0,2) SEND_F0 RECV_B0 I0[0,2) W0[0,2) REDUCE_NORM OPTIMIZER");
  const Plan plan =
      zero_plan(3, {.cuts = {2}, .samples = {{4}, {2, 2}}, .count = 1, .schedule = ScheduleKind::ZeroBubbleH1});
  CHECK(text_of(plan.roles[1].actions) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT RECV_F0 GATHER_PARAM0[2,3) F0[2,3) GATHER_PARAM0[3,4) F0[3,4) I0[3,4) "
        "GATHER_PARAM0[2,3) I0[2,3) SEND_B0 GATHER_PARAM0[3,4) W0[3,4) REDUCE_GRAD0[3,4) GATHER_PARAM0[2,3) W0[2,3) "
        "REDUCE_GRAD0[2,3) REDUCE_NORM OPTIMIZER");
}

TEST_CASE("what several blocks use is reduced and gathered by itself from ZeRO 2 on", "[zero]") {
  // The embedding and the head are one parameter.
  CHECK(list_of(1, {.samples = {{3, 1}}, .count = 1}, true) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) B0[2,4) REDUCE_GRAD[2,4) B0[1,2) REDUCE_GRAD[1,2) B0[0,1) "
        "REDUCE_GRAD[0,1) REDUCE_NORM OPTIMIZER GATHER_PARAM[2,4) GATHER_PARAM[1,2) GATHER_PARAM[0,1)");
  CHECK(list_of(2, {.samples = {{3, 1}}, .count = 1}, true) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) B0[2,4) REDUCE_GRAD0[2,4) B0[0,2) REDUCE_GRAD0[0,2) REDUCE_REUSED "
        "REDUCE_NORM OPTIMIZER GATHER_PARAM[2,4) GATHER_PARAM[0,2) GATHER_REUSED");
}

TEST_CASE("a priced list is as long as one without ZeRO", "[zero]") {
  for (const int zero : {2, 3}) {
    Plan plan = zero_plan(zero);
    fill_roles(plan, graph(), Bytes(1), ListDetail::Priced);
    CHECK(text_of(plan.roles[0].actions) ==
          "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,4) B0[0,4) F1[0,4) B1[0,4) REDUCE_NORM OPTIMIZER");
    CHECK(plan.stages == zero_plan(zero).stages);
  }
}

TEST_CASE("one bucket is gathered ahead, one whole gradient waits for its sum", "[zero]") {
  const Plan plan = zero_plan(3);
  const RankProgram program = make_rank_program(plan, graph(), 1);
  CHECK(waits(program, "GATHER_PARAM0[0,1)") == "");
  CHECK(waits(program, "GATHER_PARAM0[1,2)") == "");
  CHECK(waits(program, "GATHER_PARAM0[2,3)") == "F0[0,1)");
  CHECK(waits(program, "GATHER_PARAM0[3,4)") == "F0[1,2)");
  CHECK(waits(program, "F0[2,3)") == "GATHER_PARAM0[2,3)");
  CHECK(waits(program, "B0[3,4)") == "REDUCE_LOSS_COUNT GATHER_PARAM0[3,4) F0[3,4)");
  CHECK(waits(program, "GATHER_PARAM0[2,3)", 1) == "F0[3,4)");
  CHECK(waits(program, "GATHER_PARAM0[1,2)", 1) == "B0[3,4)");
  CHECK(waits(program, "B0[2,3)") == "B0[3,4) GATHER_PARAM0[2,3)");
  CHECK(waits(program, "REDUCE_GRAD0[3,4)") == "B0[3,4)");
  CHECK(waits(program, "B0[1,2)") == "REDUCE_GRAD0[3,4) B0[2,3) GATHER_PARAM0[1,2)");
  CHECK(waits(program, "B1[3,4)") == "REDUCE_LOSS_COUNT REDUCE_GRAD0[1,2) GATHER_PARAM1[3,4) F1[3,4)");
  CHECK(waits(make_rank_program(zero_plan(1), graph(), 0), "GATHER_PARAM[1,2)") == "OPTIMIZER");
}

TEST_CASE("gathers of ZeRO 3 have a communicator of their own", "[zero]") {
  const Plan plan = zero_plan(3);
  const std::vector<Group> groups = make_groups(plan, graph());
  REQUIRE(groups.size() == 3);
  CHECK(groups[2].kind == GroupKind::StageGather);
  CHECK(groups[2].ranks == std::vector<int>{0, 1});
  CHECK(group_of(plan, groups, 0, *parse_action("GATHER_PARAM0[1,2)")) == 2);
  CHECK(group_of(plan, groups, 0, *parse_action("REDUCE_GRAD0[1,2)")) == 1);
  // Behind the update nothing is reduced any more.
  const Plan first = zero_plan(1);
  CHECK(make_groups(first, graph()).size() == 2);
  CHECK(group_of(first, make_groups(first, graph()), 0, *parse_action("GATHER_PARAM[1,2)")) == 1);
}

TEST_CASE("lists under ZeRO hold on every schedule, and end without buffering", "[zero]") {
  const cluster::ResourceGraph cluster = make_cpu_cluster({6});
  const model::ModelGraph chain = make_chain_graph();
  for (const int zero : {1, 2, 3}) {
    for (int kind = 0; kind <= static_cast<int>(ScheduleKind::ZeroBubbleV); ++kind) {
      PlanOptions options{.cuts = {3}, .samples = {{3, 1}, {1, 1, 2}}, .count = 4};
      options.schedule = static_cast<ScheduleKind>(kind);
      options.receive_credits = 1;
      if (has_chunks(options.schedule)) {
        options.cuts = {1, 3, 4};
        options.num_chunks = 2;
      }
      Plan plan = make_plan(chain, cluster, options);
      for (Stage& stage : plan.stages) stage.zero_stage = zero;
      fill_roles(plan, chain, Bytes(1));
      CAPTURE(zero, to_text(options.schedule));
      CHECK(validate(plan, chain, cluster).empty());
      const auto again = plan_from_json(to_json(plan));
      REQUIRE(again);
      CHECK(*again == plan);
    }
  }
}

TEST_CASE("V21, V23: buckets and order that ZeRO needs", "[zero]") {
  const cluster::ResourceGraph cluster = make_cpu_cluster({4});
  const auto problems = [&](const Plan& plan) {
    std::string text;
    for (const Error& error : validate(plan, graph(), cluster)) text += error.message + "\n";
    return text;
  };
  Plan plan = zero_plan(3);
  REQUIRE(problems(plan).empty());
  SECTION("a bucket of two blocks") {
    plan.stages[0].bucket_starts = {2, 0};
    CHECK(problems(plan).find("V21") == 0);
  }
  SECTION("a priced list") {
    fill_roles(plan, graph(), Bytes(1), ListDetail::Priced);
    CHECK(problems(plan).find("V23: action is missing") == 0);
  }
  SECTION("a gather behind its use") {
    for (Role& role : plan.roles) std::swap(role.actions[2], role.actions[3]);
    CHECK(problems(plan).find("V23: parameters are gathered or blocks are run in another order") == 0);
  }
  SECTION("where actions of two streams stand to each other, which changes nothing") {
    std::swap(plan.roles[0].actions[0], plan.roles[0].actions[1]);
    CHECK(problems(plan).empty());
  }
}

TEST_CASE("collectives of one micro-batch and of the step parse as they print", "[zero]") {
  for (const char* text : {"REDUCE_GRAD[2,5)", "REDUCE_GRAD3[2,5)", "GATHER_PARAM[2,5)", "GATHER_PARAM0[2,5)",
                           "REDUCE_REUSED", "GATHER_REUSED"}) {
    const auto action = parse_action(text);
    REQUIRE(action);
    CHECK(to_text(*action) == text);
  }
  for (const char* text : {"GATHER_PARAM", "GATHER_PARAM3", "GATHER_PARAM03[2,5)", "REDUCE_GRAD.1[2,5)",
                           "GATHER_REUSED[2,5)", "REDUCE_REUSED0"})
    CHECK_FALSE(parse_action(text));
}

}  // namespace coxswain::plan
