#include "plan/action.h"

#include <set>

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("an action prints as documented", "[action]") {
  CHECK(to_text(Action{ActionKind::Forward, 3, 2, 5}) == "F3[2,5)");
  CHECK(to_text(Action{ActionKind::Backward, 0}) == "B0");
  CHECK(to_text(Action{ActionKind::BackwardInput, 7, 0, 1}) == "I7[0,1)");
  CHECK(to_text(Action{ActionKind::BackwardWeight, 7, 0, 1}) == "W7[0,1)");
  CHECK(to_text(Action{ActionKind::SendActivation, 3}) == "SEND_F3");
  CHECK(to_text(Action{ActionKind::ReceiveActivation, 3}) == "RECV_F3");
  CHECK(to_text(Action{ActionKind::SendGradient, 10}) == "SEND_B10");
  CHECK(to_text(Action{ActionKind::ReceiveGradient, 10}) == "RECV_B10");
  CHECK(to_text(Action{ActionKind::ReceiveGradient, 10, -1, -1, -1, 1}) == "RECV_B10.1");
  CHECK(to_text(Action{ActionKind::Forward, 3, 8, 11, -1, 2}) == "F3.2[8,11)");
  CHECK(to_text(Action{ActionKind::ReduceGradient, -1, 2, 5}) == "REDUCE_GRAD[2,5)");
  CHECK(to_text(Action{ActionKind::ReduceTied, -1, -1, -1, 1}) == "REDUCE_TIED1");
  CHECK(to_text(Action{ActionKind::CountLoss}) == "COUNT_LOSS");
  CHECK(to_text(Action{ActionKind::ReduceLossCount}) == "REDUCE_LOSS_COUNT");
  CHECK(to_text(Action{ActionKind::ReduceShared}) == "REDUCE_SHARED");
  CHECK(to_text(Action{ActionKind::ReduceNorm}) == "REDUCE_NORM");
  CHECK(to_text(Action{ActionKind::Optimizer}) == "OPTIMIZER");
}

TEST_CASE("parse_action is the exact inverse of to_text", "[action]") {
  for (const char* text : {"F3[2,5)", "F3", "B0[0,1)", "I2", "W2[1,9)", "SEND_F3", "RECV_F0", "SEND_B1", "RECV_B12",
                           "REDUCE_GRAD[0,4)", "REDUCE_TIED0", "REDUCE_SHARED", "COUNT_LOSS", "REDUCE_LOSS_COUNT",
                           "REDUCE_NORM", "OPTIMIZER", "F3.1[2,5)", "W0.12", "SEND_F3.1"}) {
    const auto action = parse_action(text);
    REQUIRE(action);
    CHECK(to_text(*action) == text);
  }
  for (const char* text : {"",
                           "F",
                           "F03",
                           "F-1",
                           "F3[2,5]",
                           "F3[5,2)",
                           "F3[2,)",
                           "F3[2,5) ",
                           "SEND_F3[0,1)",
                           "SEND_F",
                           "REDUCE_GRAD",
                           "REDUCE_GRAD3",
                           "OPTIMIZER1",
                           "REDUCE_TIED",
                           "f3",
                           "X1",
                           "F99999999999",
                           "F3[",
                           "F3[2",
                           "F3[2,",
                           "F3.0",
                           "F3.",
                           "F.1",
                           "REDUCE_TIED0.1",
                           "F3.01",
                           "F3[2,5).1",
                           "OPTIMIZER.1",
                           "BROADCAST_TIED0"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_action(text));
  }
}

TEST_CASE("every kind has a stream of its sort and a name of its own", "[action]") {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(ActionKind::ReduceNorm); ++i) names.insert(to_text(static_cast<ActionKind>(i)));
  CHECK(names.size() == 15);
  CHECK(names.count("send_activation") == 1);
  CHECK(is_compute(ActionKind::CountLoss));
  CHECK(is_compute(ActionKind::Optimizer));
  CHECK_FALSE(is_edge(ActionKind::Optimizer));
  CHECK(is_edge(ActionKind::ReceiveGradient));
  CHECK(stream_of(ActionKind::ReceiveGradient) == Stream::GradientIn);
  CHECK(stream_of(ActionKind::SendActivation) == Stream::ActivationOut);
  CHECK(stream_of(ActionKind::ReduceNorm) == Stream::Reduce);
  CHECK_FALSE(is_edge(ActionKind::ReduceNorm));
  CHECK_FALSE(is_compute(ActionKind::ReduceNorm));
}

}  // namespace
}  // namespace coxswain::plan
