#include "common/ensure.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

int index_of(const RankProgram& program, const std::string& text) {
  for (std::size_t i = 0; i < program.actions.size(); ++i) {
    if (to_text(program.actions[i]) == text) return static_cast<int>(i);
  }
  FAIL("no action " << text);
  return -1;
}

std::string waits(const RankProgram& program, const std::string& text) {
  std::string result;
  for (const int on : program.waits_for[static_cast<std::size_t>(index_of(program, text))]) {
    result += (result.empty() ? "" : " ") + to_text(program.actions[static_cast<std::size_t>(on)]);
  }
  return result;
}

Plan middle_plan() {
  return make_plan(make_chain_graph(), make_cpu_cluster({4}),
                   {.cuts = {2, 4}, .samples = {{4}, {2, 2}, {4}}, .count = 5, .receive_credits = 2});
}

TEST_CASE("a middle stage waits for its neighbours and its credits", "[rank_program]") {
  const Plan plan = middle_plan();
  const RankProgram program = make_rank_program(plan, make_chain_graph(), 2);
  CHECK(program.rank == 2);
  CHECK(program.place == RankPlace{1, 1, 0});
  CHECK(waits(program, "RECV_F1") == "");
  CHECK(waits(program, "RECV_F3") == "F1[2,4)");
  CHECK(waits(program, "F0[2,4)") == "RECV_F0");
  CHECK(waits(program, "F3[2,4)") == "SEND_F1 RECV_F3");
  CHECK(waits(program, "SEND_F3") == "F3[2,4)");
  CHECK(waits(program, "RECV_B1") == "");
  CHECK(waits(program, "RECV_B3") == "B1[2,4)");
  CHECK(waits(program, "B0[2,4)") == "F0[2,4) RECV_B0");
  CHECK(waits(program, "B3[2,4)") == "SEND_B1 F3[2,4) RECV_B3");
  CHECK(waits(program, "SEND_B3") == "B3[2,4)");
  // The last backward comes in parts: bucket 3 first.
  CHECK(waits(program, "B4[3,4)") == "SEND_B2 F4[2,4) RECV_B4");
  CHECK(waits(program, "B4[2,3)") == "B4[3,4)");
  CHECK(waits(program, "REDUCE_GRAD[3,4)") == "B4[3,4)");
  CHECK(waits(program, "REDUCE_GRAD[2,3)") == "B4[2,3)");
  CHECK(waits(program, "SEND_B4") == "B4[2,3)");
  CHECK(waits(program, "REDUCE_NORM") == "REDUCE_GRAD[3,4) B4[2,3) REDUCE_GRAD[2,3)");
  CHECK(waits(program, "OPTIMIZER") == "REDUCE_NORM");
}

TEST_CASE("numbers of micro-batches need not follow each other", "[rank_program]") {
  const Plan plan = middle_plan();
  const RankProgram program = make_rank_program(plan, make_chain_graph(), 2);
  std::vector<Action> far = program.actions;
  for (Action& action : far)
    if (action.micro_batch >= 0) action.micro_batch = 7 + 400'000'000 * action.micro_batch;
  CHECK(make_rank_program(plan, make_chain_graph(), 2, far).waits_for == program.waits_for);
}

TEST_CASE("first and last stage", "[rank_program]") {
  const model::ModelGraph graph = make_chain_graph();
  const Plan plan = middle_plan();
  const RankProgram first = make_rank_program(plan, graph, 0);
  CHECK(waits(first, "F0[0,2)") == "");
  CHECK(waits(first, "F2[0,2)") == "SEND_F0");
  CHECK(waits(first, "B2[0,2)") == "F2[0,2) RECV_B2");
  CHECK(waits(first, "REDUCE_TIED0") == "B4[0,2)");
  CHECK(waits(first, "REDUCE_NORM") == "B4[0,2) REDUCE_TIED0");
  const RankProgram last = make_rank_program(plan, graph, 3);
  CHECK(waits(last, "B0[4,6)") == "COUNT_LOSS F0[4,6)");
  CHECK(waits(last, "B2[4,6)") == "COUNT_LOSS SEND_B0 F2[4,6)");

  const Plan replicated =
      make_plan(graph, make_cpu_cluster({2}), {.samples = {{2, 2}}, .count = 1, .bucket_bytes = Bytes(1 << 20)});
  const RankProgram program = make_rank_program(replicated, graph, 1);
  CHECK(waits(program, "REDUCE_LOSS_COUNT") == "COUNT_LOSS");
  CHECK(waits(program, "B0[0,6)") == "REDUCE_LOSS_COUNT F0[0,6)");
}

TEST_CASE("W waits for its I, reductions for the W that touch them", "[rank_program]") {
  const Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({4}),
                              {.cuts = {2, 4},
                               .samples = {{4}, {2, 2}, {4}},
                               .count = 5,
                               .schedule = ScheduleKind::ZeroBubbleH1,
                               .receive_credits = 2});
  const RankProgram program = make_rank_program(plan, make_chain_graph(), 2);
  CHECK(waits(program, "I3[2,4)") == "SEND_B1 F3[2,4) RECV_B3");
  CHECK(waits(program, "SEND_B3") == "I3[2,4)");
  CHECK(waits(program, "RECV_B3") == "I1[2,4)");
  CHECK(waits(program, "W3[2,4)") == "I3[2,4)");
  CHECK(waits(program, "W4[3,4)") == "I4[2,4)");
  CHECK(waits(program, "REDUCE_GRAD[3,4)") == "W4[3,4)");
  CHECK(waits(program, "REDUCE_GRAD[2,3)") == "W4[2,3)");
  CHECK(waits(program, "REDUCE_NORM") == "REDUCE_GRAD[3,4) W4[2,3) REDUCE_GRAD[2,3)");
}

TEST_CASE("chunks wait for each other at the V's turn, and credits count by edge", "[rank_program]") {
  const Plan plan = make_plan(make_chain_graph({.tied = false}), make_cpu_cluster({3}),
                              {.cuts = {1, 2, 3, 4, 5},
                               .samples = {{4}, {4}, {4}},
                               .count = 5,
                               .schedule = ScheduleKind::ZeroBubbleV,
                               .receive_credits = 1,
                               .num_chunks = 2});
  const model::ModelGraph graph = make_chain_graph({.tied = false});
  const RankProgram turn = make_rank_program(plan, graph, 2);
  CHECK(waits(turn, "F2.1[3,4)") == "SEND_F1.1 F2[2,3)");
  CHECK(waits(turn, "F2[2,3)") == "RECV_F2");
  CHECK(waits(turn, "I2[2,3)") == "F2[2,3) SEND_B1 I2.1[3,4)");
  const RankProgram loss = make_rank_program(plan, graph, 0);
  CHECK(waits(loss, "I0.1[5,6)") == "COUNT_LOSS F0.1[5,6)");
  CHECK(waits(loss, "I0[0,1)") == "F0[0,1) RECV_B0");
  const RankProgram middle = make_rank_program(plan, graph, 1);
  CHECK(waits(middle, "RECV_F1") == "F0[1,2)");
  CHECK(waits(middle, "RECV_F1.1") == "F0.1[4,5)");
  CHECK(waits(middle, "F1.1[4,5)") == "SEND_F0.1 RECV_F1.1");
}

TEST_CASE("a bucket waits for every chunk that may use its parameters", "[rank_program]") {
  // By hand: the second chunk's weight gradient comes last, and the first chunk's bucket holds what both use.
  Plan plan =
      make_plan(make_chain_graph({.tied = false}), make_cpu_cluster({2}),
                {.cuts = {3}, .samples = {{2, 2}}, .count = 1, .schedule = ScheduleKind::ZeroBubbleV, .num_chunks = 2});
  const std::vector<Action> actions{{ActionKind::Forward, 0, 0, 3},
                                    {ActionKind::Forward, 0, 3, 6, -1, 1},
                                    {ActionKind::BackwardInput, 0, 3, 6, -1, 1},
                                    {ActionKind::BackwardInput, 0, 0, 3},
                                    {ActionKind::BackwardWeight, 0, 0, 3},
                                    {ActionKind::ReduceGradient, -1, 0, 3},
                                    {ActionKind::BackwardWeight, 0, 3, 6, -1, 1},
                                    {ActionKind::ReduceGradient, -1, 3, 6}};
  const RankProgram program = make_rank_program(plan, make_chain_graph({.tied = false}), 0, actions);
  CHECK(waits(program, "REDUCE_GRAD[0,3)") == "W0.1[3,6)");
  CHECK(waits(program, "REDUCE_GRAD[3,6)") == "W0.1[3,6)");
}

TEST_CASE("evaluation's reduction waits for the last forward", "[rank_program]") {
  const Plan plan = middle_plan();
  const RankProgram program = make_rank_program(plan, make_chain_graph(), 3, evaluation_actions(plan, 2));
  CHECK(waits(program, "REDUCE_NORM") == "F4[4,6)");
  CHECK(waits(program, "RECV_F2") == "F0[4,6)");
}

TEST_CASE("each stream keeps its order and waits are honoured", "[rank_program]") {
  const RankProgram program = make_rank_program(middle_plan(), make_chain_graph(), 2);
  StepState state(program);
  const int receive = index_of(program, "RECV_F0");
  CHECK(state.startable(Stream::ActivationIn) == receive);
  CHECK(state.startable(Stream::Compute) == -1);
  CHECK(state.next(Stream::Compute) == index_of(program, "F0[2,4)"));
  state.started(receive);
  CHECK(state.startable(Stream::ActivationIn) == -1);
  CHECK_THROWS_AS(state.started(receive), EnsureFailure);
  CHECK_THROWS_AS(state.finished(index_of(program, "F0[2,4)")), EnsureFailure);
  state.finished(receive);
  CHECK(state.has_finished(receive));
  CHECK(state.startable(Stream::ActivationIn) == index_of(program, "RECV_F1"));
  CHECK(state.startable(Stream::Compute) == index_of(program, "F0[2,4)"));
  CHECK_FALSE(state.done());
  state.reset();
  CHECK(state.startable(Stream::ActivationIn) == receive);
  CHECK(state.startable(Stream::Compute) == -1);
}

TEST_CASE("a program is done when every action has finished", "[rank_program]") {
  const Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({1}), {.count = 2});
  const RankProgram program = make_rank_program(plan, make_chain_graph(), 0);
  StepState state(program);
  int ran = 0;
  while (!state.done()) {
    for (const Stream stream : {Stream::Compute, Stream::Reduce}) {
      const int action = state.startable(stream);
      if (action < 0) continue;
      state.started(action);
      state.finished(action);
      ++ran;
    }
  }
  CHECK(ran == 7);
}

}  // namespace
}  // namespace coxswain::plan
