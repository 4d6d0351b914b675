#include "plan/zero_bubble_search.h"

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

TEST_CASE("every choice of every knob is a policy that finds an order", "[zero_bubble_search]") {
  for (const int chunks : {1, 2}) {
    const ZeroBubbleProblem problem = even_problem(3, 5, chunks, 1, 8);
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    ZeroBubbleDispatcher dispatcher(pipeline);
    for (int knob = 0; knob < kNumKnobs; ++knob) {
      REQUIRE(num_choices(pipeline, knob) >= 1);
      for (int choice = 0; choice < num_choices(pipeline, knob); ++choice) {
        ZeroBubbleKnobs knobs{};
        knobs[static_cast<std::size_t>(knob)] = choice;
        StepLists lists;
        CHECK(dispatcher.run(make_policy(pipeline, knobs, pipeline.work(0), pipeline.work(0)), lists));
        CHECK(longest_span_of(problem, lists).has_value());
      }
    }
  }
}

TEST_CASE("devices nearer to the start have more in flight", "[zero_bubble_search]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(4, 12, 1, 0, 100));
  // Device d: 4 - d forwards and 3 - d gradients of 10 until its own gradient; a micro-batch is 30 of work.
  const auto policy = make_policy(pipeline, {0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0}, 0, 0);
  CHECK(policy.max_flying[0] == std::vector<int>{7, 5, 3, 1});
}

TEST_CASE("a search that meets the bound stops", "[zero_bubble_search]") {
  const ZeroBubbleProblem problem = even_problem(4, 12, 1, 0, 8);
  const ZeroBubblePipeline pipeline = make_pipeline(problem);
  const Ticks bound = longest_span_bound(pipeline);
  const StepSearch found = search_steps(pipeline, bound);
  CHECK(found.span == bound);
  CHECK(found.num_candidates < 10);
  CHECK(*longest_span_of(problem, found.lists) == 390);
}

}  // namespace
}  // namespace coxswain::plan
