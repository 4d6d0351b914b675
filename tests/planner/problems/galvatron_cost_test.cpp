// Galvatron-2's formulas, each by numbers worked out by hand.
#include "planner/problems/galvatron_cost.h"

#include <algorithm>

#include "tests/planner/problems/galvatron_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

const GalvatronStrategy kData{1, 1, 4, 2, false}, kTensor{2, 1, 2, 3, true}, kSequence{1, 2, 2, 2, false};

}  // namespace

TEST_CASE("layer times add compute, overlap, messages and gathers", "[galvatron_cost_test]") {
  const GalvatronInstance instance = small_galvatron(4, 2);
  // n = 2: forward 21, backward 42, gradient 3/4 x 64 x 0.25 = 12, overlapped at 1.25.
  CHECK(*layer_ms(instance, {1, 1}, kData, false) == Approx(63));
  CHECK(*layer_ms(instance, {1, 1}, kData, true) == Approx(63 + 0.25 * 12));
  // n = 4, t = 2: forward 21, backward 63, gradient 1/2 x 32 x 0.25 = 4, half of it again for ZeRO 3, messages of 4 MB.
  CHECK(*layer_ms(instance, {1, 1}, kTensor, false) == Approx(84 + 9 * 2.125 + 2));
  CHECK(*layer_ms(instance, {1, 1}, kTensor, true) == Approx(84 + 1 + 9 * 2.125 + 2));
  CHECK(*layer_ms(instance, {1, 1}, kSequence, false) == Approx(63 + 4 * 1.0625));
  // A pipeline of 2: n = 8, 2 x 2 x 8 MB x 0.5 over two layers. Without data parallelism nothing is reduced.
  CHECK(*layer_ms(instance, {2, 1}, {1, 2, 1, 0, false}, true) == Approx(123 + 4 * 2.0625 + 8));
}

TEST_CASE("a measured point beats the line", "[galvatron_cost_test]") {
  GalvatronInstance instance = small_galvatron(4, 2);
  instance.all_to_all[2].points["4"] = 3;
  CHECK(*layer_ms(instance, {1, 1}, kSequence, false) == Approx(63 + 4 * 3));
  instance.all_to_all.clear();
  CHECK_FALSE(layer_ms(instance, {1, 1}, kSequence, false).has_value());
  CHECK(layer_ms(instance, {1, 1}, kTensor, false).has_value());
}

TEST_CASE("embedding and head share the ends of the pipeline", "[galvatron_cost_test]") {
  const GalvatronInstance instance = small_galvatron(4, 4);
  // tp 2, dp 2, n = 4: forward 42; states 400 / 8 x 0.25 x 1/2 x 0.5 = 3.125 gathered, then the rest at 1 / 1.25.
  const double forward = 3.125 + (42 * 1.25 - 3.125) / 1.25, backward = 3.125 + (84 * 1.25 - 3.125) / 1.25;
  CHECK(*end_ms(instance, {1, 1}, {2, 1, 2, 3, false}, 0) == Approx(forward + backward + 2 * 2.125));
  // Half the time per end, one message each; nothing inside. One GPU per stage.
  CHECK(*end_ms(instance, {4, 4}, {}, 0) == Approx(3 * (20 * 2 + 2) / 2.0));
  CHECK(*end_ms(instance, {4, 4}, {}, 1) == 0);
  CHECK(*end_ms(instance, {4, 4}, {}, 3) == Approx(63));
}

TEST_CASE("memory counts shards, micro-batches in flight and the buffer", "[galvatron_cost_test]") {
  const GalvatronInstance instance = small_galvatron(4, 4);
  // ZeRO 2 on four: 7/8 x 0.253 + 1/8 = 0.346375 of 256, and 2 x 400; with chunks a quarter more of the states.
  CHECK(layer_mb(instance, {1, 1}, kData, 0) == 889);
  CHECK(layer_mb(instance, {1, 2}, kData, 0) == 511);
  // ZeRO 3 on two: 0.503 of 128, checkpoints 10 x 4 / 2.
  CHECK(layer_mb(instance, {1, 1}, kTensor, 0) == 85);
  // No data parallelism: all of 256; three micro-batches of two in flight.
  CHECK(layer_mb(instance, {4, 4}, {}, 1) == 256 + 3 * 2 * 400);
  CHECK(end_mb(instance, {4, 4}, {}, 0) == 1024 + 400 + 40 * 4 * 2);
  CHECK(end_mb(instance, {4, 4}, {}, 2) == 1024);
  CHECK(end_mb(instance, {4, 4}, {}, 3) == 1024 + 400 + 40 * 2);
  CHECK(buffer_mb(instance, {1, 1}, 2) == 4);
  CHECK(buffer_mb(instance, {1, 8}, 1) == 1);  // a chunk of one sample is spread over four GPUs all the same
  GalvatronInstance large = instance;
  large.memory_mb = 20 * 1024 + 1023;
  CHECK(budget_mb(large) == 21503);
  large.memory_mb = 21 * 1024 + 3;
  CHECK(budget_mb(large) == 21507 - 4301);
}

TEST_CASE("strategies multiply to the stage's GPUs", "[galvatron_cost_test]") {
  GalvatronInstance instance = small_galvatron(4, 4);
  // tp 1: ZeRO 2, 3; t 2: tp or sp, ZeRO 2, 3; t 4: tp or sp. All with and without recompute.
  CHECK(list_strategies(instance, {1, 1}, true).size() == 16);
  CHECK(list_strategies(instance, {1, 1}, false).size() == 8);
  CHECK(list_strategies(instance, {1, 4}, false).size() == 6);  // a chunk of two samples: not dp 4
  instance.max_degree = 1;
  CHECK(list_strategies(instance, {1, 1}, false) ==
        std::vector<GalvatronStrategy>{{1, 1, 4, 2, false}, {1, 1, 4, 3, false}});
}

TEST_CASE("a step adds the pipeline, the exposed sync and the changes of degree", "[galvatron_cost_test]") {
  GalvatronInstance instance = small_galvatron(4, 3);
  instance.all_reduce_ms_per_mb["4_1"] = instance.all_reduce_ms_per_mb["4"] = 20;
  // pp 1, two chunks of n = 1: layers 33, 33 and 18 + 4 x 0.5625 at sp 2 with n = 2 (forward 11, 33 in all).
  const GalvatronPlan plan{1, 2, {3}, {kData, kData, kSequence}, {1, 1, 4, 2, false}};
  const double wide = 33 + 4 * 0.5625, end = 66;
  // Gradient 3/4 x 64 x 20 = 960 hides the backward of 22: 11 + 960 + 0.25 x 22; at sp 2 over dp x sp = 4 the same.
  const double synced = 11 + 960 + 5.5;
  const double free = 66 + wide + end, sync = 3 * synced + 4 * 0.5625;
  // The change to degree 2: 1/2 x 4 samples over 2 groups x 2^20 bytes x 0.25 x 1e-7 s.
  const double change = 0.5 * 2 * 1048576 * 0.25 * 1e-4;
  CHECK(*resharding_ms(instance, {1, 2}, 1, 2) == Approx(change));
  CHECK(*estimate_galvatron_ms(instance, plan) == Approx(2 * free + (sync - free) + 2 * change));
  CHECK(*stage_memory_mb(instance, plan) == std::vector<std::int64_t>{*end_mb(instance, {1, 2}, kData, 0) + 2 * 511 +
                                                                      *layer_mb(instance, {1, 2}, kSequence, 0)});
}

TEST_CASE("the pipeline waits for the slower of its ends", "[galvatron_cost_test]") {
  const GalvatronInstance instance = small_galvatron(2, 3);
  // One GPU per stage, four chunks of two: a layer takes 3 x 21 and 2 x 2 x 2 MB x 0.5 / 3 of sends, an end 63.
  const double layer = 63 + 4.0 / 3;
  const GalvatronStrategy one{};
  CHECK(*estimate_galvatron_ms(instance, {2, 4, {1, 2}, {one, one, one}, one}) ==
        Approx((layer + 63) + 4 * (2 * layer + 63)));
  // The first stage is slower: its four micro-batches, or three and the rest of the pipeline.
  const double first = 2 * layer + 63, last = layer + 63;
  CHECK(*estimate_galvatron_ms(instance, {2, 4, {2, 1}, {one, one, one}, one}) ==
        Approx(std::max({first + 4 * last, 4 * first, 3 * first + last})));
}
