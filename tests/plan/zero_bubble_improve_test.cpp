#include "plan/zero_bubble_improve.h"

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("moves never leave a worse, deadlocked or too large order", "[zero_bubble_improve]") {
  std::mt19937 random(29);
  int better = 0;
  for (int i = 0; i < 60; ++i) {
    const ZeroBubbleProblem problem = random_problem(random, 4, 6);
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    StepLists lists = sequential_steps(pipeline);
    const double before = *longest_span_of(problem, lists);
    std::int64_t moves = 0;
    const Ticks span = improve_steps(pipeline, {300, pipeline.work(0) / 50, 0}, lists, moves);
    CHECK(moves <= 300);
    const auto after = longest_span_of(problem, lists);
    REQUIRE(after.has_value());
    CHECK(static_cast<double>(span) / pipeline.ticks_per_second == Approx(*after));
    CHECK(*after <= before);
    better += *after < before ? 1 : 0;
    for (const auto& steps : lists) CHECK(peak_memory(pipeline, steps) <= problem.memory_limit);
  }
  CHECK(better > 20);
}

TEST_CASE("two devices come from the worst order to the best", "[zero_bubble_improve]") {
  const ZeroBubbleProblem problem = even_problem(2, 3, 1, 2, 6);
  const ZeroBubblePipeline pipeline = make_pipeline(problem);
  StepLists lists = sequential_steps(pipeline);
  std::int64_t moves = 0;
  const Ticks span = improve_steps(pipeline, {2000, pipeline.forward[0], 0}, lists, moves);
  CHECK(static_cast<double>(span) / pipeline.ticks_per_second == Approx(brute_force(problem)));
}

TEST_CASE("a good enough order ends the moves", "[zero_bubble_improve]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(2, 3, 1, 2, 6));
  StepLists lists = sequential_steps(pipeline);
  std::int64_t moves = 0;
  CHECK(improve_steps(pipeline, {2000, 0, kNever}, lists, moves) < kNever);
  CHECK(moves == 0);
  CHECK(lists == sequential_steps(pipeline));
}

}  // namespace
}  // namespace coxswain::plan
