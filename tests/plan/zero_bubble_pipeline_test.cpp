#include "plan/zero_bubble_pipeline.h"

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("decimal seconds are whole ticks", "[zero_bubble_pipeline]") {
  ZeroBubbleProblem problem = even_problem(2, 4, 1, 0.1, 4);
  problem.devices[0] = {Seconds(18.5), Seconds(0.3), Seconds(1e-3)};
  const ZeroBubblePipeline pipeline = make_pipeline(problem);
  const auto tick = static_cast<Ticks>(pipeline.ticks_per_second / 1000);
  CHECK(pipeline.forward[0] == 18'500 * tick);
  CHECK(pipeline.input[0] == 300 * tick);
  CHECK(pipeline.weight[0] == tick);
  CHECK(pipeline.communication == 100 * tick);
}

TEST_CASE("a round trip crosses every later part", "[zero_bubble_pipeline]") {
  ZeroBubbleProblem problem = even_problem(2, 1, 2, 1000, 4);
  problem.devices = {{Seconds(1), Seconds(10), Seconds(0)}, {Seconds(2), Seconds(20), Seconds(0)}};
  const ZeroBubblePipeline pipeline = make_pipeline(problem);
  const auto seconds = [&](Ticks ticks) { return static_cast<double>(ticks) / pipeline.ticks_per_second; };
  // Parts: device 0, 1, 1, 0.
  CHECK(seconds(forward_chain(pipeline, 0, 3)) == 1 + 1000 + 2 + 2 + 1000);
  CHECK(seconds(input_chain(pipeline, 3, 0)) == 10 + 1000 + 20 + 20 + 1000);
  CHECK(seconds(round_trip(pipeline, 0, 0)) == 2005 + 1 + 2050);
  CHECK(seconds(round_trip(pipeline, 1, 2)) == 2 + 2 + 1000 + 1 + 10 + 1000);
}

TEST_CASE("the bound knows what memory forces", "[zero_bubble_pipeline]") {
  const auto bound = [](const ZeroBubbleProblem& problem) {
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    return static_cast<double>(longest_span_bound(pipeline)) / pipeline.ticks_per_second;
  };
  CHECK(bound(even_problem(4, 12, 1, 0, 8)) == 390);   // idle for 3 backwards before the first gradient
  CHECK(bound(even_problem(4, 12, 1, 0, 16)) == 360);  // work alone
  // Device 0: 4 forwards, idle until 3 x (10 + 1 + 10 + 1) + 10; last forward to the end: 3 x 22 + 10 + 10 of
  // gradient and weight, in which 4 x 20 of work is left.
  CHECK(bound(even_problem(4, 12, 1, 1, 8)) == 360 + (76 - 40) + (86 - 80));
}

TEST_CASE("the bound is below every order of two devices", "[zero_bubble_pipeline]") {
  std::mt19937 random(3);
  for (int i = 0; i < 40; ++i) {
    ZeroBubbleProblem problem = random_problem(random, 1, 3);
    problem.num_chunks = 1;
    problem.devices.resize(2, {Seconds(4), Seconds(9), Seconds(5)});
    problem.memory_limit = 2 + static_cast<int>(random() % 6);
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    CHECK(static_cast<double>(longest_span_bound(pipeline)) <=
          brute_force(problem) * pipeline.ticks_per_second * (1 + 1e-12));
  }
}

TEST_CASE("one micro-batch after the other holds one per chunk", "[zero_bubble_pipeline]") {
  for (const int chunks : {1, 2}) {
    const ZeroBubblePipeline pipeline = make_pipeline(even_problem(3, 4, chunks, 0, 100));
    const StepLists lists = sequential_steps(pipeline);
    CHECK(lists.size() == 3);
    CHECK(peak_memory(pipeline, lists[0]) == 2 * chunks);
    CHECK(longest_span_of(even_problem(3, 4, chunks, 0, 100), lists).has_value());
  }
}

TEST_CASE("weight work belongs to the oldest gradient that waits", "[zero_bubble_pipeline]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(1, 2, 1, 0, 4));
  const auto order =
      to_order(pipeline, {{Step::Forward0, Step::Forward0, Step::Input0, Step::Input0, Step::Weight, Step::Weight}});
  const auto W = ActionKind::BackwardWeight;
  REQUIRE(order[0].size() == 6);
  CHECK(order[0][3] == ZeroBubbleAction{ActionKind::BackwardInput, 1, 0});
  CHECK(order[0][4] == ZeroBubbleAction{W, 0, 0});
  CHECK(order[0][5] == ZeroBubbleAction{W, 1, 0});
}

}  // namespace
}  // namespace coxswain::plan
