// Stages by closed forms: each number of the instance is a digit of its own.
#include "planner/problems/piper_stages.h"

#include <limits>

#include "tests/planner/problems/piper_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// a -> b -> c and a -> c; tp 2 costs half the seconds and 1000 sync bytes at each end of an edge.
PiperBuilder three_nodes() {
  PiperBuilder builder;
  builder.devices = 5;
  builder.micro_batches = 12;
  for (int v = 0; v < 3; ++v) builder.node();
  builder.edge(0, 1, 1);
  builder.edge(1, 2, 10);
  builder.edge(0, 2, 100);
  builder.sync_bytes = 1000;
  for (int v = 0; v < 3; ++v) {
    builder.option(v, 1, false, {.seconds = 1e6, .parameters = 3e5, .stash = 10});
    builder.option(v, 1, true, {.seconds = 3e6, .parameters = 3e5, .stash = 1});
    if (v < 2) builder.option(v, 2, false, {.seconds = 5e5, .parameters = 0, .stash = 5});
  }
  return builder;
}

/// The load at dp 1 of each candidate, in their order.
std::vector<double> loads(const PiperStages& stages, std::size_t upper) {
  std::vector<double> loads;
  for (const auto& candidate : stages.candidates(upper)) loads.push_back(candidate.slope + candidate.offset);
  return loads;
}

}  // namespace

TEST_CASE("a candidate has the edges that cross its ends and no others", "[piper_stages_test]") {
  const PiperInstance instance = three_nodes().build();
  const PiperSets sets = all_sets(instance);
  const PiperStages stages(instance, sets, kInfinity);
  REQUIRE(sets.count() == 4);
  // Of a: both of its edges out. With tp 2 both have 1000 sync bytes more.
  CHECK(loads(stages, 1) == std::vector<double>{1e6 + 202, 5e5 + 2 * 2101});
  // Of a and b, then of b alone: a -> c passes over it.
  CHECK(loads(stages, 2) == std::vector<double>{2e6 + 220, 1e6 + 2 * 2110, 1e6 + 22, 5e5 + 2 * 2011});
  // c has no option for tp 2.
  CHECK(loads(stages, 3) == std::vector<double>{3e6, 2e6 + 202, 1e6 + 220});
  // (7): 4 x 9e5 / 12 bytes come with replicas.
  CHECK(stages.candidates(3)[0].offset == 3e5);
  CHECK(stages.least_load() == Approx(3e6 / 5));
}

TEST_CASE("the smallest dp is a divisor that meets the limit", "[piper_stages_test]") {
  const PiperInstance instance = three_nodes().build();
  const PiperSets sets = all_sets(instance);
  const PiperStages stages(instance, sets, kInfinity);
  const auto& all = stages.candidates(3)[0];  // 2.7e6 / dp + 3e5
  CHECK(stages.smallest_dp(all, 3e6) == 1);
  CHECK(stages.smallest_dp(all, 3e6 - 1) == 2);
  CHECK(stages.smallest_dp(all, 1.65e6) == 2);
  CHECK(stages.smallest_dp(all, 1.2e6) == 3);
  CHECK(stages.smallest_dp(all, 9.75e5) == 4);
  CHECK(stages.smallest_dp(all, 9.74e5) == 0);  // 6 are more than the devices
  CHECK(stages.smallest_dp(all, 3e5) == 0);
  CHECK(stages.next_dp(1) == 2);
  CHECK(stages.next_dp(3) == 4);
  CHECK(stages.next_dp(4) == 0);
}

TEST_CASE("memory decides together with the time for recomputing", "[piper_stages_test]") {
  PiperBuilder builder = three_nodes();
  builder.memory = 21;
  const PiperInstance instance = builder.build();
  const PiperSets sets = all_sets(instance);
  PiperStages stages(instance, sets, kInfinity);
  const auto& all = stages.candidates(3)[0];
  // 30 bytes, of which recomputing one node takes 9 away, as many as must go, for 2e6 s.
  CHECK(all.slope == 4.7e6);
  CHECK(stages.meets(all, 3, 1, 1, 5e6));
  CHECK_FALSE(stages.meets(all, 3, 1, 1, 4.9e6));
  CHECK(stages.meets(all, 3, 2, 1, 2.65e6));
  // Seven stashes of a and b are 14 bytes at least, eleven are 22.
  const auto& front = stages.candidates(2)[0];
  CHECK(stages.meets(front, 2, 1, 7, 6e6 + 220));
  CHECK_FALSE(stages.meets(front, 2, 1, 7, 5.9e6));
  CHECK_FALSE(stages.meets(front, 2, 1, 11, kInfinity));
  CHECK(stages.make_stage(front, 2, 1, 7) == PiperStage{{0, 1}, 1, 1, {0, 1}});
}

TEST_CASE("devices are counted from the input, and useless stages go", "[piper_stages_test]") {
  PiperBuilder builder = piper_chain({4, 2, 2, 6}, 0);
  builder.devices = 4;
  builder.micro_batches = 12;
  const PiperInstance instance = builder.build();
  const PiperSets sets = all_sets(instance);
  PiperStages stages(instance, sets, kInfinity);
  CHECK(stages.devices_before(4) == std::vector<std::int64_t>{0, 1, 2, 2, 4});
  CHECK(stages.devices_before(14) == std::vector<std::int64_t>{0, 1, 1, 1, 1});
  CHECK(stages.devices_before(3)[4] > 4);
  const auto count = [&] {
    std::size_t sum = 0;
    for (std::size_t upper = 1; upper < sets.count(); ++upper) sum += stages.candidates(upper).size();
    return sum;
  };
  CHECK(count() == 10);
  // At 4 the third node alone needs a device beside two in front and two behind; all else is in a plan of four.
  stages.drop(4);
  CHECK(count() == 9);
  CHECK(stages.candidates(3).size() == 2);
  CHECK(PiperStages(instance, sets, 4).candidates(3).size() == 2);
  // At 3.5 all devices serve one stage; nothing else is left.
  stages.drop(3.5);
  CHECK(count() == 1);
  CHECK(stages.candidates(4)[0].lower == 0);
}
