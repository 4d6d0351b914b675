#include "plan/zero_bubble_dispatch.h"

#include "tests/plan/zero_bubble_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

ZeroBubblePolicy plain_policy(const ZeroBubblePipeline& pipeline) {
  ZeroBubblePolicy policy;
  for (auto& flying : policy.max_flying)
    flying.assign(static_cast<std::size_t>(pipeline.num_devices), pipeline.max_in_flight());
  return policy;
}

std::string text_of(const std::vector<Step>& steps) {
  std::string text;
  for (const Step step : steps) text += "fFbBw"[static_cast<std::size_t>(step)];
  return text;
}

TEST_CASE("the last device alternates, weight work fills the end", "[zero_bubble_dispatch]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(2, 3, 1, 0, 100));
  StepLists lists;
  REQUIRE(ZeroBubbleDispatcher(pipeline).run(plain_policy(pipeline), lists));
  // Device 0 has all forwards out of the way when the first gradient comes at 30.
  CHECK(text_of(lists[0]) == "fffbwbwbw");
  CHECK(text_of(lists[1]) == "fbfbfbwww");
}

TEST_CASE("memory makes weight work come first", "[zero_bubble_dispatch]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(1, 2, 1, 0, 2));
  StepLists lists;
  REQUIRE(ZeroBubbleDispatcher(pipeline).run(plain_policy(pipeline), lists));
  CHECK(text_of(lists[0]) == "fbwfbw");
}

TEST_CASE("weaving runs weight work at once", "[zero_bubble_dispatch]") {
  const ZeroBubblePipeline pipeline = make_pipeline(even_problem(1, 3, 1, 0, 100));
  ZeroBubblePolicy policy = plain_policy(pipeline);
  policy.weave_until = 0;
  StepLists lists;
  REQUIRE(ZeroBubbleDispatcher(pipeline).run(policy, lists));
  CHECK(text_of(lists[0]) == "fbwfbwfbw");
}

TEST_CASE("any policy gives an order that runs within memory", "[zero_bubble_dispatch]") {
  std::mt19937 random(17);
  for (int i = 0; i < 400; ++i) {
    const ZeroBubbleProblem problem = random_problem(random, 4, 7);
    const ZeroBubblePipeline pipeline = make_pipeline(problem);
    ZeroBubblePolicy policy = plain_policy(pipeline);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    policy.spacing = pipeline.work(0) / (1 + below(9));
    policy.alternate = static_cast<ZeroBubblePolicy::Alternate>(below(3));
    policy.chunks_alternate = below(2) == 0;
    policy.weave_until = below(4) - 1;
    policy.patience_fraction = below(3) * 0.4;
    policy.forward_wait_fraction = below(3) * 0.5;
    policy.fill_fraction = below(3) * 0.5;
    policy.target = below(2) == 0 ? kNever : pipeline.work(0);
    policy.count_communication = below(2) == 0;
    for (auto& flying : policy.max_flying) {
      for (int& most : flying) most = 1 + below(most);
    }
    StepLists lists;
    REQUIRE(ZeroBubbleDispatcher(pipeline).run(policy, lists));
    CHECK(longest_span_of(problem, lists).has_value());
    for (const auto& steps : lists) {
      CHECK(static_cast<int>(steps.size()) == pipeline.steps_per_device());
      CHECK(peak_memory(pipeline, steps) <= problem.memory_limit);
    }
  }
}

}  // namespace
}  // namespace coxswain::plan
