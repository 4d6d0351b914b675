// The choice of recomputed nodes, against all subsets and by hand.
#include "planner/problems/piper_memory.h"

#include <algorithm>
#include <random>

#include "tests/planner/problems/piper_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

double seconds_of(const std::vector<Saving>& savings, const std::vector<std::size_t>& chosen, double needed) {
  double bytes = 0, seconds = 0;
  for (const std::size_t i : chosen) {
    bytes += savings[i].bytes;
    seconds += savings[i].seconds;
  }
  REQUIRE(bytes >= needed);
  return seconds;
}

double least_of_all(const std::vector<Saving>& savings, double needed) {
  double best = 1e300;
  for (unsigned subset = 0; subset < 1U << savings.size(); ++subset) {
    double bytes = 0, seconds = 0;
    for (std::size_t i = 0; i < savings.size(); ++i) {
      if ((subset >> i & 1U) == 0) continue;
      bytes += savings[i].bytes;
      seconds += savings[i].seconds;
    }
    if (bytes >= needed) best = std::min(best, seconds);
  }
  return best;
}

/// Three nodes side by side: keeping costs 10, 20, 30 bytes a stash, recomputing 1 byte a stash and 4 fixed ones.
PiperBuilder three_choices() {
  PiperBuilder builder;
  builder.devices = 4;
  for (int v = 0; v < 3; ++v) {
    builder.node();
    builder.option(v, 1, false, {.seconds = 10, .stash = 10.0 * (v + 1)});
    builder.option(v, 1, true,
                   {.seconds = 10 + std::vector<double>{3, 5, 7}[static_cast<std::size_t>(v)], .stash = 1, .fixed = 4});
  }
  return builder;
}

}  // namespace

TEST_CASE("chosen savings are the best of all subsets", "[piper_memory_test]") {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> bytes(1, 40), seconds(0, 30), size(1, 10);
  for (int round = 0; round < 300; ++round) {
    std::vector<Saving> savings;
    double total = 0;
    for (int i = size(random); i > 0; --i) {
      savings.push_back({static_cast<double>(bytes(random)), static_cast<double>(seconds(random))});
      total += savings.back().bytes;
    }
    std::stable_sort(savings.begin(), savings.end(),
                     [](const Saving& a, const Saving& b) { return a.seconds / a.bytes < b.seconds / b.bytes; });
    const double needed = std::uniform_int_distribution<int>(1, static_cast<int>(total))(random);
    CHECK(seconds_of(savings, choose_savings(savings, needed), needed) == least_of_all(savings, needed));
  }
}

TEST_CASE("sixty nearly equal layers are no harder than their number", "[piper_memory_test]") {
  std::vector<Saving> savings;
  savings.reserve(60);
  for (int i = 0; i < 60; ++i) savings.push_back({100, 1 + i * 1e-4});
  // 30.5 layers' worth: the 31 quickest.
  CHECK(seconds_of(savings, choose_savings(savings, 3050), 3050) == Approx(31 + 1e-4 * 30 * 31 / 2).epsilon(1e-12));
}

TEST_CASE("a stage keeps what fits and recomputes the rest for least time", "[piper_memory_test]") {
  PiperBuilder builder = three_choices();
  builder.memory = 100;
  const PiperInstance instance = builder.build();
  const PiperSets sets = all_sets(instance);
  PiperMemory memory(instance, sets);
  CHECK(memory.degrees() == std::vector<std::int64_t>{1});
  const PiperSpan all{0, sets.full(), 0};
  CHECK(memory.has_options(all));
  CHECK(memory.seconds(all) == 30);
  CHECK(memory.excess(all, 1) == -40);
  CHECK(memory.choose_recompute(all, 1).empty());
  // Two stashes: 120 bytes; recomputing saves 14, 34, 54 for 3, 5, 7 s, so the second alone is best.
  CHECK(memory.excess(all, 2) == 20);
  CHECK(memory.least_extra_seconds(all, 2) == 5);
  CHECK(memory.choose_recompute(all, 2) == std::vector<int>{1});
  const SecondsRange range = memory.bound_extra_seconds(all, 2);
  CHECK(range.low == Approx(7.0 * 20 / 54));
  CHECK(range.high == 7);
  // Four: 240 bytes; 32, 72, 112 saved: 140 needs the last two or all but the second.
  CHECK(memory.least_extra_seconds(all, 4) == 7 + 3);
  CHECK(memory.choose_recompute(all, 4) == std::vector<int>{0, 2});
  // All recomputed: 12 + 3 y.
  CHECK(memory.can_fit(all, 29));
  CHECK_FALSE(memory.can_fit(all, 30));
}

TEST_CASE("a node whose recomputation is faster starts recomputed", "[piper_memory_test]") {
  PiperBuilder builder;
  builder.memory = 50;
  builder.node();
  builder.option(0, 2, false, {.seconds = 3, .stash = 10});
  builder.option(0, 2, true, {.seconds = 2, .stash = 20});
  const PiperInstance instance = builder.build();
  const PiperSets sets = all_sets(instance);
  PiperMemory memory(instance, sets);
  const PiperSpan all{0, 1, 0};
  CHECK(memory.seconds(all) == 2);
  CHECK(memory.choose_recompute(all, 2) == std::vector<int>{0});
  CHECK(memory.least_extra_seconds(all, 3) == 1);
  CHECK(memory.choose_recompute(all, 3).empty());
}
