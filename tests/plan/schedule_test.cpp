#include <map>
#include "common/ensure.h"

#include "plan/program.h"
#include "tests/plan/pytorch_schedules.h"

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

TEST_CASE("an I with its W next is run as one where nothing comes before", "[schedule]") {
  using enum ActionKind;
  // Of the figures above: all of the first stage, none of the second one; whatever communicates between.
  CHECK(find_whole_backwards(make_schedule(ScheduleKind::ZeroBubbleH1, 0, 3, 4), 0) == std::set{0, 1, 2, 3});
  CHECK(find_whole_backwards(make_schedule(ScheduleKind::ZeroBubbleH1, 1, 3, 4), 0) == std::set<int>{});
  CHECK(find_whole_backwards(make_schedule(ScheduleKind::OneForwardOneBackward, 0, 3, 4), 0).empty());
  const std::vector<Action> parts{{Forward, 0, 0, 4},        {BackwardInput, 0, 2, 4},  {GatherParameter, 0, 0, 2},
                                  {BackwardInput, 0, 0, 2},  {BackwardWeight, 0, 2, 4}, {ReduceGradient, 0, 2, 4},
                                  {BackwardWeight, 0, 0, 2}, {ReduceGradient, 0, 0, 2}};
  CHECK(find_whole_backwards(parts, 0) == std::set{0});
  CHECK(find_whole_backwards(parts, 1).empty());
}

TEST_CASE("what is in flight is the list's own peak, and the published one", "[schedule]") {
  for (int num_stages = 1; num_stages <= 6; ++num_stages) {
    for (int count = 1; count <= 14; ++count) {
      for (int stage = 0; stage < num_stages; ++stage) {
        const auto check = [&](ScheduleKind kind, int published) {
          int held = 0, most = 0;
          int owed = 0, most_owed = 0;
          for (const Action& action : make_schedule(kind, stage, num_stages, count)) {
            held += action.kind == ActionKind::Forward ? 1 : action.kind == ActionKind::BackwardInput ? 0 : -1;
            owed += action.kind == ActionKind::BackwardInput ? 1 : action.kind == ActionKind::BackwardWeight ? -1 : 0;
            most = std::max(most, held);
            most_owed = std::max(most_owed, owed);
          }
          CHECK(held == 0);
          CHECK(most_owed == peak_weights_owed(kind, stage, count));
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

TEST_CASE("interleaved 1F1B and ZB-V are PyTorch's orders", "[schedule]") {
  for (const PytorchSchedule& recorded : kPytorchSchedules) {
    const ScheduleKind kind = *parse_schedule_kind(recorded.kind);
    const auto theirs = read_schedule_csv(recorded.csv);
    REQUIRE(theirs);
    CHECK(theirs->num_micro_batches == recorded.num_micro_batches);
    for (int stage = 0; stage < recorded.num_stages; ++stage) {
      CAPTURE(recorded.kind, recorded.num_stages, recorded.num_chunks, recorded.num_micro_batches, stage);
      CHECK(make_schedule(kind, stage, recorded.num_stages, recorded.num_micro_batches, recorded.num_chunks) ==
            theirs->stages[static_cast<std::size_t>(stage)]);
    }
  }
}

TEST_CASE("with chunks every list is complete, in order, and at its published peak", "[schedule]") {
  for (const ScheduleKind kind : {ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleV}) {
    for (const int chunks : {2, 3, 4}) {
      if (kind == ScheduleKind::ZeroBubbleV && chunks > 2) continue;
      for (int num_stages = 1; num_stages <= 5; ++num_stages) {
        for (int count = 1; count <= 14; ++count) {
          for (int stage = 0; stage < num_stages; ++stage) {
            CAPTURE(to_text(kind), chunks, num_stages, count, stage);
            const auto list = make_schedule(kind, stage, num_stages, count, chunks);
            const bool split = splits_backward(kind);
            REQUIRE(list.size() == static_cast<std::size_t>((split ? 3 : 2) * count * chunks));
            std::map<std::pair<int, int>, int> steps;  // how far a micro-batch has come in a chunk
            int held = 0, most = 0, owed = 0, most_owed = 0;
            for (const Action& action : list) {
              const int step = action.kind == ActionKind::Forward          ? 0
                               : action.kind == ActionKind::BackwardWeight ? 2
                                                                           : 1;
              CHECK(steps[{action.chunk, action.micro_batch}]++ == step);
              held += step == 0 ? 1 : step == 1 && split ? 0 : -1;
              owed += step == 0 ? 0 : step == 2 ? -1 : split ? 1 : 0;
              most = std::max(most, held);
              most_owed = std::max(most_owed, owed);
            }
            CHECK(steps.size() == static_cast<std::size_t>(count * chunks));
            CHECK(most == peak_in_flight(kind, stage, num_stages, count, chunks));
            CHECK(most_owed <= peak_weights_owed(kind, stage, count));
            if (count < 2 * num_stages) continue;
            // arXiv 2401.10241, section 6: as much as 1F1B's first stage, p whole micro-batches, on every stage.
            if (split) CHECK(most == 2 * num_stages);
            // arXiv 2205.05198, section 4.2.3: 1F1B's peak times 1 + (p - 1) / (p v), in chunks v p + p - 1.
            if (!split && stage == 0 && count % num_stages == 0) CHECK(most == chunks * num_stages + num_stages - 1);
          }
        }
      }
    }
  }
}

TEST_CASE("parts run through the stages again and again, or down and up", "[schedule]") {
  for (const ScheduleKind kind : {ScheduleKind::Interleaved, ScheduleKind::ZeroBubbleV}) {
    for (int part = 0; part < 8; ++part) {
      const PartPlace place = place_of_part(kind, part, 4);
      CHECK(part_of(kind, place.stage, 4, place.chunk) == part);
      const bool up = kind == ScheduleKind::ZeroBubbleV && part >= 4;
      CHECK(place == PartPlace{up ? 7 - part : part % 4, part / 4});
    }
  }
}

TEST_CASE("chunk counts fit the stages and the blocks", "[schedule]") {
  CHECK(chunk_choices(ScheduleKind::OneForwardOneBackward, 4, 12) == std::vector<int>{1});
  CHECK(chunk_choices(ScheduleKind::OneForwardOneBackward, 4, 3).empty());
  CHECK(chunk_choices(ScheduleKind::Interleaved, 4, 12) == std::vector<int>{2, 3});
  CHECK(chunk_choices(ScheduleKind::Interleaved, 4, 120, 4) == std::vector<int>{2, 3, 4});
  CHECK(chunk_choices(ScheduleKind::Interleaved, 1, 12).empty());
  CHECK(chunk_choices(ScheduleKind::ZeroBubbleV, 4, 8) == std::vector<int>{2});
  CHECK(chunk_choices(ScheduleKind::ZeroBubbleV, 4, 7).empty());
}

TEST_CASE("a number of chunks that a schedule does not have is refused", "[schedule]") {
  CHECK_THROWS_AS(make_schedule(ScheduleKind::ZeroBubbleV, 0, 2, 2), EnsureFailure);
  CHECK_THROWS_AS(make_schedule(ScheduleKind::Interleaved, 0, 2, 2, 1), EnsureFailure);
  CHECK_THROWS_AS(make_schedule(ScheduleKind::OneForwardOneBackward, 0, 2, 2, 2), EnsureFailure);
}

}  // namespace
}  // namespace coxswain::plan
