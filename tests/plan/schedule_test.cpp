#include "common/ensure.h"
#include "plan/program.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

std::string text_of(ScheduleKind kind, int stage, int num_stages, int num_micro_batches) {
  std::string text;
  for (const Action& action : make_schedule(kind, stage, num_stages, num_micro_batches))
    text += (text.empty() ? "" : " ") + to_text(action);
  return text;
}

TEST_CASE("1F1B is PyTorch's order", "[schedule]") {
  // Printed by torch 2.13.0, Schedule1F1B._get_pipeline_order (its last stage, which numbers forwards from 1 there, is
  // the strict alternation that the paper and its own step function have).
  const ScheduleKind kind = ScheduleKind::OneForwardOneBackward;
  CHECK(text_of(kind, 0, 3, 4) == "F0 F1 F2 B0 F3 B1 B2 B3");
  CHECK(text_of(kind, 1, 3, 4) == "F0 F1 B0 F2 B1 F3 B2 B3");
  CHECK(text_of(kind, 2, 3, 4) == "F0 B0 F1 B1 F2 B2 F3 B3");
  CHECK(text_of(kind, 0, 4, 4) == "F0 F1 F2 F3 B0 B1 B2 B3");
  CHECK(text_of(kind, 1, 4, 4) == "F0 F1 F2 B0 F3 B1 B2 B3");
  CHECK(text_of(kind, 2, 4, 4) == "F0 F1 B0 F2 B1 F3 B2 B3");
  CHECK(text_of(kind, 0, 2, 3) == "F0 F1 B0 F2 B1 B2");
}

TEST_CASE("GPipe runs all forwards, then all backwards, in one order", "[schedule]") {
  CHECK(text_of(ScheduleKind::GPipe, 0, 2, 3) == "F0 F1 F2 B0 B1 B2");
  CHECK(text_of(ScheduleKind::GPipe, 1, 2, 3) == "F0 F1 F2 B0 B1 B2");
}

TEST_CASE("fewer micro-batches than stages leave no steady phase", "[schedule]") {
  CHECK(text_of(ScheduleKind::OneForwardOneBackward, 0, 4, 2) == "F0 F1 B0 B1");
  CHECK(text_of(ScheduleKind::OneForwardOneBackward, 3, 4, 2) == "F0 B0 F1 B1");
  CHECK(text_of(ScheduleKind::OneForwardOneBackward, 0, 1, 1) == "F0 B0");
}

TEST_CASE("1F1B holds at most num_stages - stage micro-batches", "[schedule]") {
  for (int num_stages = 1; num_stages <= 5; ++num_stages) {
    for (int count = 1; count <= 9; ++count) {
      for (int stage = 0; stage < num_stages; ++stage) {
        int held = 0, most = 0;
        for (const Action& action : make_schedule(ScheduleKind::OneForwardOneBackward, stage, num_stages, count)) {
          held += action.kind == ActionKind::Forward ? 1 : -1;
          most = std::max(most, held);
        }
        CHECK(most == std::min(num_stages - stage, count));
        CHECK(held == 0);
      }
    }
  }
}

TEST_CASE("H1 and H2 by hand", "[schedule]") {
  // Drawn on paper with F = I = W: H1 as in figure 2 of arXiv 2401.10241 (W of the first micro-batch follows the last
  // stage's third I), H2 as in its figure 3.
  CHECK(text_of(ScheduleKind::ZeroBubbleH1, 0, 3, 4) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3");
  CHECK(text_of(ScheduleKind::ZeroBubbleH1, 1, 3, 4) == "F0 F1 I0 F2 I1 W0 F3 I2 W1 I3 W2 W3");
  CHECK(text_of(ScheduleKind::ZeroBubbleH1, 2, 3, 4) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
  CHECK(text_of(ScheduleKind::ZeroBubbleH2, 0, 2, 4) == "F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3");
  CHECK(text_of(ScheduleKind::ZeroBubbleH2, 1, 2, 4) == "F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3");
  CHECK(text_of(ScheduleKind::ZeroBubbleH2, 0, 1, 2) == "F0 I0 W0 F1 I1 W1");
}

TEST_CASE("what is in flight is the list's own peak, and the published one", "[schedule]") {
  for (int num_stages = 1; num_stages <= 6; ++num_stages) {
    for (int count = 1; count <= 14; ++count) {
      for (int stage = 0; stage < num_stages; ++stage) {
        const auto check = [&](ScheduleKind kind, int published) {
          int held = 0, most = 0;
          for (const Action& action : make_schedule(kind, stage, num_stages, count)) {
            held += action.kind == ActionKind::Forward ? 1 : action.kind == ActionKind::BackwardInput ? 0 : -1;
            most = std::max(most, held);
          }
          CHECK(held == 0);
          CHECK(most == published);
          CHECK(peak_in_flight(kind, stage, num_stages, count) == published);
        };
        check(ScheduleKind::GPipe, count);
        check(ScheduleKind::OneForwardOneBackward, std::min(num_stages - stage, count));
        // Table 2 of arXiv 2401.10241: p and 2p - 1 micro-batches.
        check(ScheduleKind::ZeroBubbleH1, std::min(num_stages, count));
        check(ScheduleKind::ZeroBubbleH2, std::min(2 * num_stages - 1, count));
      }
    }
  }
}

TEST_CASE("a schedule without an order is refused", "[schedule]") {
  CHECK_THROWS_AS(make_schedule(ScheduleKind::ZeroBubbleV, 0, 2, 2), EnsureFailure);
}

}  // namespace
}  // namespace coxswain::plan
