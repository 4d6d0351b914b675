// A step is whole when every rank has told of it; what its row says of all of them.
#include "launcher/control/open_steps.h"

#include "proto/control.pb.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

std::string report(std::int64_t step, double seconds, const std::string& not_finite = "") {
  control::StepReport made;
  made.set_step(step);
  made.set_loss(2.5);
  made.set_step_seconds(seconds);
  made.set_bubble_fraction(seconds);
  made.set_peak_memory_bytes(static_cast<std::int64_t>(1000 * seconds));
  made.set_skipped(!not_finite.empty());
  made.set_not_finite(not_finite);
  return made.SerializeAsString();
}

}  // namespace

TEST_CASE("a step comes when its last rank has told, and steps in their order", "[open_steps]") {
  OpenSteps steps;
  CHECK_FALSE(steps.next(1));
  steps.add(1, 3, report(7, 0.2));
  steps.add(0, 3, report(7, 0.4));
  steps.add(0, 3, report(8, 1));
  steps.add(1, 3, report(8, 1));
  steps.add(2, 3, report(8, 1));
  CHECK_FALSE(steps.next(1));  // 8 is whole, 7 is not
  steps.add(2, 3, report(7, 0.3));
  const auto row = steps.next(4);
  REQUIRE(row);
  CHECK(row->step == 7);
  CHECK(row->generation == 4);
  CHECK(row->loss == 2.5);
  CHECK(row->step_seconds == 0.4);                 // the slowest
  CHECK(row->bubble_fraction == Approx(0.9 / 3));  // the mean
  CHECK(row->peak_memory_bytes == std::vector<std::int64_t>{400, 200, 300});
  CHECK(steps.next(4)->step == 8);
  CHECK_FALSE(steps.next(4));
}

TEST_CASE("rows of experts come from the one rank that tells them", "[open_steps]") {
  OpenSteps steps;
  control::StepReport told;
  told.set_step(7);
  for (const int block : {1, 3}) {
    control::ExpertTokens& router = *told.add_expert_tokens();
    router.set_block(block);
    for (const int tokens : {5, 0, block}) router.add_tokens(tokens);
  }
  steps.add(0, 2, told.SerializeAsString());
  steps.add(1, 2, report(7, 1));
  const auto row = steps.next(1);
  REQUIRE(row);
  REQUIRE(row->expert_tokens.size() == 2);
  CHECK(row->expert_tokens[1].block == 3);
  CHECK(row->expert_tokens[1].tokens == std::vector<std::int64_t>{5, 0, 3});
}

TEST_CASE("a step of which a report will never come holds up none behind it once it is forgotten", "[open_steps]") {
  OpenSteps steps;
  steps.add(0, 2, report(7, 1));
  steps.add(0, 2, report(8, 1));
  steps.forget(7);
  CHECK_FALSE(steps.next(1));
  steps.add(1, 2, report(8, 1));
  REQUIRE(steps.next(1));
  CHECK_FALSE(steps.next(1));
}

TEST_CASE("of what is not finite the first rank's loss is named before gradients, which follow", "[open_steps]") {
  OpenSteps steps;
  steps.add(0, 4, report(1, 1, "the gradients are"));
  steps.add(1, 4, report(1, 1));
  steps.add(2, 4, report(1, 1, "the loss is"));
  steps.add(3, 4, report(1, 1, "the loss is"));
  const auto row = steps.next(1);
  REQUIRE(row);
  CHECK(row->skipped == true);
  CHECK(row->not_finite_rank == 2);
  CHECK(row->not_finite == "the loss is");
}

TEST_CASE("a step that a rank which is gone did not tell of is a row of the others", "[open_steps]") {
  OpenSteps steps;
  steps.add(0, 3, report(7, 0.2));
  steps.add(2, 3, report(7, 0.4));
  steps.add(2, 3, report(8, 1));
  CHECK(steps.tells_of(7, 8));
  CHECK(steps.tells_of(9, 8));
  CHECK_FALSE(steps.tells_of(6, 8));
  CHECK_FALSE(steps.tells_of(7, 9));
  const StepRow row = steps.take(5);
  CHECK(row.step == 7);
  CHECK(row.generation == 5);
  CHECK(row.loss == 2.5);
  CHECK(row.step_seconds == 0.4);
  CHECK(row.bubble_fraction == Approx(0.6 / 2));  // of those that told
  CHECK(row.peak_memory_bytes == std::vector<std::int64_t>{200, 0, 400});
  CHECK(steps.take(5).step == 8);
}
