// Sailor's cost function against closed forms and a plain per-replica reading of its formulas.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("one stage costs its rounds, its update and its ring", "[sailor_model_test]") {
  const SailorInstance instance = make_instance(3, 8, {{0, 0, 4}});
  const SailorModel model(instance);
  const auto estimate = model.estimate({1, {{0, 3, {{0, 2, 2}}}}});
  REQUIRE(estimate);
  // 4 rounds of 3 layers at 0.5 s, update 0.25 s; 12e6 bytes over 2 shards, 2 steps of 3e6 bytes at 10^9 bytes a
  // second.
  CHECK(estimate->seconds == Approx(4 * 1.5 + 0.25 + 2 * 0.003).epsilon(1e-12));
  CHECK(estimate->usd == Approx(estimate->seconds * 4 * 1.0).epsilon(1e-12));  // one dollar a second each
}

TEST_CASE("two stages pay for transfers, in dollars too where they leave the zone", "[sailor_model_test]") {
  const SailorInstance instance = make_instance(3, 5, {{0, 0, 4}, {1, 1, 4}});
  const SailorModel model(instance);
  const auto estimate = model.estimate({1, {{0, 2, {{0, 1, 1}}}, {2, 3, {{1, 2, 1}}}}});
  REQUIRE(estimate);
  // 10^6 bytes: 1 ms a send. First stage 2 s + 1 ms, last 1 s + 2 ms; 4 further rounds of the slower; update 0.5 s.
  CHECK(estimate->seconds == Approx(4 * 2.001 + 2.001 + 1.002 + 0.5).epsilon(1e-12));
  // 5 x 10^6 bytes each way at 10 dollars for 10^9; GPUs at 1 + 2 x 0.5 dollars a second.
  CHECK(estimate->usd == Approx(2 * 5 * 0.01 + estimate->seconds * 2).epsilon(1e-12));
}

TEST_CASE("large gradients go in buckets, and more than three stages send twice first", "[sailor_model_test]") {
  SailorInstance instance = make_instance(4, 4, {{0, 0, 8}});
  for (auto& layer : instance.layers.at(1)) layer->parameters = 150e6;
  const SailorModel model(instance);
  CHECK(model.all_reduce_seconds(1.2e9, 4, 0, 0) == Approx(6 * (0.125 + 0.125 + 0.05)).epsilon(1e-12));
  SailorPlan plan{1, {}};
  for (int i = 0; i < 4; ++i) plan.stages.push_back({i, i + 1, {{0, 1, 2}}});
  // Each stage 1 s + 2 ms; one further round; 0.6e9 bytes in buckets of 0.5e9 and 0.1e9 over 2.
  CHECK(model.estimate(plan)->seconds == Approx(1.002 + 4 * 1.002 + 0.5 + 2 * (0.25 + 0.05)).epsilon(1e-12));
}

TEST_CASE("plans that break a rule have no estimate", "[sailor_model_test]") {
  SailorInstance instance = make_instance(3, 8, {{0, 0, 4}});
  instance.links.erase({{0, 0, 2}, {0, 0, 1}});
  const SailorModel model(instance);
  const auto valid = [&](SailorPlan plan) { return model.estimate(plan).has_value(); };
  CHECK(valid({1, {{0, 3, {{0, 1, 4}}}}}));
  CHECK_FALSE(valid({1, {{0, 3, {{0, 1, 5}}}}}));                       // GPUs
  CHECK_FALSE(valid({1, {{0, 3, {{0, 4, 1}}}}}));                       // no such degree
  CHECK_FALSE(valid({2, {{0, 3, {{0, 1, 1}}}}}));                       // no such micro-batch
  CHECK_FALSE(valid({1, {{0, 2, {{0, 1, 1}}}}}));                       // layers
  CHECK_FALSE(valid({1, {{0, 2, {{0, 1, 1}}}, {2, 3, {{0, 1, 2}}}}}));  // unlike numbers of replicas
  CHECK_FALSE(valid({1, {{0, 2, {{0, 2, 1}}}, {2, 3, {{0, 1, 1}}}}}));  // no link
  instance.gpus[0].memory_bytes = 2e9 + 24 * 3e6 + 4 * 3e6;
  CHECK(valid({1, {{0, 3, {{0, 1, 4}}}}}));
  instance.gpus[0].memory_bytes -= 1;
  CHECK_FALSE(valid({1, {{0, 3, {{0, 1, 4}}}}}));
}

TEST_CASE("mixed plans cost what a plain reading of the formulas says", "[sailor_model_test]") {
  std::mt19937 random(11);
  int compared = 0;
  for (int round = 0; round < 400; ++round) {
    const SailorInstance instance = random_instance(random, {{0, 0, 9}, {1, 0, 9}, {0, 1, 9}, {1, 1, 9}});
    const SailorModel model(instance);
    const int replicas = 1 + static_cast<int>(random() % 4);
    SailorPlan plan{1, {}};
    for (int first = 0; first < instance.num_layers;) {
      const int end = first + 1 + static_cast<int>(random() % static_cast<unsigned>(instance.num_layers - first));
      SailorStage stage{first, end, {}};
      for (int left = replicas; left > 0;) {
        const int count = 1 + static_cast<int>(random() % static_cast<unsigned>(left));
        stage.replicas.push_back({static_cast<int>(random() % 4), 1 + static_cast<int>(random() % 2), count});
        left -= count;
      }
      plan.stages.push_back(stage);
      first = end;
    }
    const auto [seconds, usd] = naive_estimate(instance, plan);
    const auto estimate = model.estimate(plan);
    REQUIRE(estimate.has_value() == (seconds >= 0));
    if (!estimate) continue;
    ++compared;
    CHECK(estimate->seconds == Approx(seconds).epsilon(1e-12));
    CHECK(estimate->usd == Approx(usd).epsilon(1e-12));
  }
  CHECK(compared > 100);
}
