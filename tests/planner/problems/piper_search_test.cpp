// The search by optima that need no search.
#include "planner/problems/piper_search.h"

#include <random>

#include "tests/planner/problems/piper_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

PiperPlan best(const PiperBuilder& builder) {
  const auto plan = search_piper(builder.build());
  REQUIRE(plan.has_value());
  return *plan;
}

}  // namespace

TEST_CASE("a chain is cut where its halves are even", "[piper_search_test]") {
  PiperBuilder builder = piper_chain({1, 2, 3, 4, 5, 6}, 0);
  builder.micro_batches = 7;
  builder.devices = 2;
  CHECK(best(builder).score == 11);
  builder.devices = 3;
  CHECK(best(builder).score == 9);
  builder.devices = 6;
  CHECK(best(builder).score == 6);
}

TEST_CASE("one stage with all devices is best when nothing is synchronised", "[piper_search_test]") {
  PiperBuilder builder = piper_chain({3, 5, 4}, 1);
  builder.devices = 12;
  builder.micro_batches = 24;
  const PiperPlan plan = best(builder);
  CHECK(plan.score == 1);
  REQUIRE(plan.stages.size() == 1);
  CHECK(plan.stages[0].dp == 12);
  // 5 is no divisor of 24, 4 is.
  builder.devices = 5;
  CHECK(best(builder).score == 3);
}

TEST_CASE("independent nodes are dealt out evenly, beyond what one order allows", "[piper_search_test]") {
  // 2^11 sets; 1 to 11 add up to 66, 22 and 33 are reachable, and 37 micro-batches forbid replicas.
  PiperBuilder builder;
  for (int v = 0; v < 11; ++v) {
    builder.node();
    builder.option(v, 1, false, {.seconds = 1.0 + v});
  }
  builder.micro_batches = 37;
  builder.devices = 2;
  CHECK(best(builder).score == 33);
  builder.devices = 3;
  CHECK(best(builder).score == 22);
  builder.devices = 6;
  CHECK(best(builder).score == 11);
}

TEST_CASE("a small sum of later replicas can be worth more devices", "[piper_search_test]") {
  // Behind the first node stand one replica with tp 4 or two with tp 1, both 1 s. With two the first node keeps three
  // stashes, for which it has no room, or has two replicas, for which there are no devices.
  PiperBuilder builder;
  builder.devices = 7;
  builder.micro_batches = 6;
  builder.memory = 25;
  builder.node();
  builder.node();
  builder.edge(0, 1, 0);
  builder.option(0, 3, false, {.seconds = 1, .stash = 10});
  builder.option(1, 1, false, {.seconds = 2, .stash = 1, .fixed = 20});
  builder.option(1, 4, false, {.seconds = 1, .stash = 1, .fixed = 20});
  const PiperPlan plan = best(builder);
  CHECK(plan.score == 1);
  REQUIRE(plan.stages.size() == 2);
  CHECK(plan.stages[1] == PiperStage{{1}, 1, 4, {}});
  builder.devices = 6;
  CHECK(best(builder).score == 2);
}

TEST_CASE("what does not fit is said", "[piper_search_test]") {
  PiperBuilder builder = piper_chain({1, 1}, 0);
  builder.nodes[0]["options"].array()[0]["memory_fixed"] = 11.0;
  builder.memory = 10;
  const auto plan = search_piper(builder.build());
  REQUIRE_FALSE(plan.has_value());
  CHECK(plan.error().code == ErrorCode::ResourceExhausted);
  builder.memory = 11;
  CHECK(best(builder).score == 2);
}

TEST_CASE("a known plan is only beaten, never repeated", "[piper_search_test]") {
  PiperBuilder builder = piper_chain({1, 2, 3, 4, 5, 6}, 0);
  builder.devices = 2;
  builder.micro_batches = 7;
  const PiperInstance instance = builder.build();
  const PiperSets sets = all_sets(instance);
  CHECK_FALSE(PiperSearch(instance, sets, 11).solve().has_value());
  CHECK(PiperSearch(instance, sets, 11.5).solve().value_or(PiperPlan{}).score == 11);
}

TEST_CASE("more memory never makes the best plan slower", "[piper_search_test]") {
  std::mt19937 random(3);
  std::uniform_int_distribution<int> number(1, 20);
  for (int round = 0; round < 20; ++round) {
    PiperBuilder builder;
    builder.devices = 8;
    builder.micro_batches = 24;
    for (int v = 0; v < 10; ++v) {
      builder.node();
      if (v > 0) builder.edge(v - 1, v, number(random));
    }
    for (int v = 0; v < 10; ++v) {
      const double seconds = number(random), stash = number(random);
      builder.option(v, 1, false, {.seconds = seconds, .parameters = 9, .stash = stash, .fixed = 1});
      builder.option(v, 1, true, {.seconds = seconds * 1.3, .parameters = 9, .stash = stash / 4, .fixed = 2});
      builder.option(v, 2, false, {.seconds = seconds * 0.7, .parameters = 5, .stash = stash * 0.6, .fixed = 1});
    }
    double last = 1e300;
    for (const double memory : {20.0, 30.0, 50.0, 80.0, 120.0, 400.0}) {
      builder.memory = memory;
      const auto plan = search_piper(builder.build());
      if (!plan) continue;
      CHECK(plan->score <= last * (1 + 1e-12));
      last = plan->score;
    }
    CHECK(last < 1e300);
  }
}
