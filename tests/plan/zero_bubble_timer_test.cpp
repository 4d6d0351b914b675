#include "plan/zero_bubble_timer.h"

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

double seconds(const ZeroBubblePipeline& pipeline, Ticks ticks) {
  return static_cast<double>(ticks) / pipeline.ticks_per_second;
}

TEST_CASE("timing a change equals timing all", "[zero_bubble_timer]") {
  std::mt19937 random(23);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  int kept = 0, undone = 0;
  for (int i = 0; i < 40; ++i) {
    const ZeroBubbleProblem problem = random_problem(random, 4, 6);
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    StepLists lists = sequential_steps(pipeline);
    ZeroBubbleTimer timer(pipeline);
    REQUIRE(seconds(pipeline, timer.time_all(lists)) == Approx(*longest_span_of(problem, lists)));
    for (int change = 0; change < 60; ++change) {
      const int device = below(pipeline.num_devices), first = 1 + below(pipeline.steps_per_device() - 1);
      const StepLists before = lists;
      auto& list = lists[static_cast<std::size_t>(device)];
      std::swap(list[static_cast<std::size_t>(first)], list[static_cast<std::size_t>(first) - 1]);
      const Ticks span = timer.time_change(lists, device, first - 1, kNever - 1);
      const auto expected = longest_span_of(problem, lists);
      CHECK((span < kNever) == expected.has_value());
      if (expected && span < kNever) CHECK(seconds(pipeline, span) == Approx(*expected));
      if (span < kNever && list[0] == Step::Forward0 && below(3) > 0) {
        timer.keep(lists);
        ++kept;
      } else {
        lists = before;
        timer.undo();
        ++undone;
      }
    }
  }
  CHECK(kept > 100);
  CHECK(undone > 100);
}

TEST_CASE("a change over the limit is not timed to its end", "[zero_bubble_timer]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(2, 2, 1, 0, 100));
  using enum Step;
  StepLists lists{{Forward0, Forward0, Input0, Weight, Input0, Weight},
                  {Forward0, Input0, Forward0, Input0, Weight, Weight}};
  ZeroBubbleTimer timer(pipeline);
  const Ticks span = timer.time_all(lists);
  // Device 0: F 0-20, B 30-40, W -50, B -60, W -70.
  CHECK(seconds(pipeline, span) == 70);
  CHECK(timer.slowest_device() == 0);
  CHECK(seconds(pipeline, timer.start(0, 2)) == 30);
  CHECK(timer.input_position(0, 1) == 4);
  CHECK(timer.inputs_before(0, 4) == 1);
  std::swap(lists[1][1], lists[1][2]);  // the first gradient 10 later
  CHECK(timer.time_change(lists, 1, 1, span) == kNever);
  timer.undo();
  std::swap(lists[1][1], lists[1][2]);
  CHECK(seconds(pipeline, timer.start(0, 2)) == 30);
}

}  // namespace
}  // namespace coxswain::plan
