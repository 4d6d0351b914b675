// Splitting a micro-batch and what a stage takes.
#include "planner/stage_cost.h"

#include <functional>
#include <numeric>
#include <random>

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

std::vector<std::int64_t> by_replica(const std::vector<SplitShare>& shares, const std::vector<SplitClass>& classes) {
  std::vector<std::int64_t> samples;
  for (std::size_t c = 0; c < shares.size(); ++c) {
    for (std::int32_t r = 0; r < classes[c].replicas; ++r)
      samples.push_back(shares[c].base + (r < shares[c].extra ? 1 : 0));
  }
  return samples;
}

}  // namespace

TEST_CASE("the split is the best over all splits", "[stage_cost_test]") {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
    const std::int64_t speed[] = {pick(1, 9), pick(1, 9)}, fixed = pick(0, 20);
    const auto time = [&](UnitKind key, std::int64_t samples) {
      return fixed + 100 * samples / speed[key.device_class];
    };
    const std::vector<SplitClass> classes{{pick(1, 2), {0, {}, 1}, 1000}, {pick(0, 2), {1, {}, 1}, 1000}};
    const std::int64_t micro = pick(1, 14);
    std::vector<SplitClass> used;
    for (const SplitClass& entry : classes) {
      if (entry.replicas > 0) used.push_back(entry);
    }
    const auto samples = by_replica(split_samples(micro, used, time), used);
    std::vector<UnitKind> keys;
    for (const SplitClass& entry : used) keys.insert(keys.end(), static_cast<std::size_t>(entry.replicas), entry.key);
    if (static_cast<std::int64_t>(keys.size()) > micro) {
      CHECK(samples.empty());
      continue;
    }
    REQUIRE(samples.size() == keys.size());
    CHECK(std::accumulate(samples.begin(), samples.end(), std::int64_t{0}) == micro);
    const auto slowest = [&](const std::vector<std::int64_t>& split) {
      std::int64_t worst = 0;
      for (std::size_t r = 0; r < split.size(); ++r) worst = std::max(worst, time(keys[r], split[r]));
      return worst;
    };
    std::int64_t best = 1LL << 60;
    std::vector<std::int64_t> trial;
    const std::function<void(std::int64_t)> enumerate = [&](std::int64_t left) {
      if (trial.size() + 1 == keys.size()) {
        trial.push_back(left);
        best = std::min(best, slowest(trial));
        trial.pop_back();
        return;
      }
      for (std::int64_t mine = 1; mine + static_cast<std::int64_t>(keys.size() - trial.size()) - 1 <= left; ++mine) {
        trial.push_back(mine);
        enumerate(left - mine);
        trial.pop_back();
      }
    };
    enumerate(micro);
    CHECK(slowest(samples) == best);
  }
}

TEST_CASE("a class with little memory takes fewer samples", "[stage_cost_test]") {
  const auto time = [](UnitKind, std::int64_t samples) { return samples; };
  const std::vector<SplitClass> classes{{1, {0, {}, 1}, 100}, {1, {1, {}, 1}, 3}};
  CHECK(by_replica(split_samples(10, classes, time), classes) == std::vector<std::int64_t>{7, 3});
  CHECK(split_samples(10, {{1, {0, {}, 1}, 5}, {1, {1, {}, 1}, 3}}, time).empty());
}

TEST_CASE("unequal devices share a micro-batch by their speed", "[stage_cost_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = make_cluster({make_device("fast", 1 << 30), make_device("slow", 1 << 30)}, {1, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  FakeCost cost(graph, resources);
  cost.speed = {1.0, 0.4};
  cost.forward = {0, 1, 1, 1, 1};
  const SpanCosts spans(cost, plan::Precision::Float32, RecomputeRule::Free, {});
  const auto pools = make_pools(resources);
  REQUIRE(pools.has_value());
  StageContext context;
  context.spans = &spans;
  context.pools = &*pools;
  context.micro = 14;
  context.count = 2;
  context.bucket_bytes = Bytes(1 << 20);
  context.compositions = {make_composition(*pools, all_of(*pools), Axes{})};
  StageCosts costs(context);
  const StageChoices& choices = costs.stage(0, 5, 0, {0, 1});
  REQUIRE(choices.fits());
  const StageCost& stage = choices.fitting.front();
  CHECK(stage.shares == std::vector<Share>{{0, 1, 10}, {1, 1, 4}});
  CHECK(stage.busy == 4 * 3 * 10 * 1'000'000'000LL);
  CHECK(stage.sync > 0);
  CHECK(&costs.stage(0, 5, 0, {0, 1}) == &choices);
  context.samples = {5, 9};  // the larger to the faster, whatever the order
  StageCosts pinned(context);
  CHECK(pinned.stage(0, 5, 0, {0, 1}).fitting.front().shares == std::vector<Share>{{0, 1, 9}, {1, 1, 5}});
}
