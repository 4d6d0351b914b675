// Choices for the layers of one stage, against every assignment of strategies to layers.
#include "planner/problems/galvatron_stage.h"

#include <algorithm>
#include <random>

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

GalvatronStage random_stage(std::mt19937& random) {
  std::uniform_int_distribution<int> number(1, 40);
  GalvatronStage stage;
  std::vector<GalvatronLayerOption> options;
  for (const int degree : {1, 1, 1, 2, 2, 4}) {
    GalvatronLayerOption option;
    option.degree = degree;
    option.free = number(random);
    option.sync = option.free + number(random) / 4;
    option.memory = number(random);
    options.push_back(option);
  }
  stage.options = undominated(options);
  stage.layers = 1 + number(random) % 5;
  stage.capacity = stage.layers * number(random);
  stage.end_free = number(random);
  stage.resharding = {{2, number(random) / 8}, {4, number(random) / 8}};
  stage.resharding_weight = 3;
  stage.charges = {{number(random), 3, 0}, {0, 2, 1}};
  return stage;
}

struct Tried {
  Cost free = 0, sync = 0, resharding = 0;
  int first = 0, last = 0;
};

/// Every assignment that fits.
std::vector<Tried> try_all(const GalvatronStage& stage) {
  std::vector<Tried> result;
  std::vector<std::size_t> chosen(static_cast<std::size_t>(stage.layers), 0);
  for (;;) {
    Tried tried{stage.end_free, 0, 0, stage.options[chosen.front()].degree, stage.options[chosen.back()].degree};
    std::int64_t memory = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const GalvatronLayerOption& option = stage.options[chosen[i]];
      tried.free += option.free;
      tried.sync += option.sync;
      memory += option.memory;
      const int before = i == 0 ? option.degree : stage.options[chosen[i - 1]].degree;
      if (before != option.degree) tried.resharding += stage.resharding.at(std::max(before, option.degree));
    }
    if (memory <= stage.capacity) result.push_back(tried);
    std::size_t i = 0;
    while (i < chosen.size() && ++chosen[i] == stage.options.size()) chosen[i++] = 0;
    if (i == chosen.size()) return result;
  }
}

Cost charge(const GalvatronStage& stage, Cost free, Cost sync, Cost resharding) {
  Cost most = 0;
  for (const GalvatronCharge& each : stage.charges)
    most = std::max(most, each.base + each.free * free + each.sync * sync);
  return most + stage.resharding_weight * resharding;
}

}  // namespace

TEST_CASE("no assignment beats all choices", "[galvatron_stage_test]") {
  std::mt19937 random(11);
  int num_empty = 0, num_mixed = 0;
  for (int round = 0; round < 150; ++round) {
    const GalvatronStage stage = random_stage(random);
    std::int64_t num_labels = 0;
    const auto choices = find_stage_choices(stage, num_labels);
    const auto tried = try_all(stage);
    CHECK(choices.empty() == tried.empty());
    num_empty += tried.empty() ? 1 : 0;
    for (const Tried& one : tried) {
      const bool covered = std::any_of(choices.begin(), choices.end(), [&](const GalvatronChoice& choice) {
        const auto degree = [&](int option) { return stage.options[static_cast<std::size_t>(option)].degree; };
        return choice.free <= one.free && choice.sync <= one.sync && choice.resharding <= one.resharding &&
               degree(choice.options.front()) == one.first && degree(choice.options.back()) == one.last;
      });
      CHECK(covered);
    }
    for (const GalvatronChoice& choice : choices) num_mixed += choice.resharding > 0 ? 1 : 0;
  }
  CHECK(num_empty > 5);
  CHECK(num_mixed > 50);
}

TEST_CASE("an upper bound keeps exactly what costs less", "[galvatron_stage_test]") {
  std::mt19937 random(12);
  for (int round = 0; round < 150; ++round) {
    GalvatronStage stage = random_stage(random);
    Cost best = kNoCost;
    for (const Tried& one : try_all(stage)) best = std::min(best, charge(stage, one.free, one.sync, one.resharding));
    if (best == kNoCost) continue;
    std::int64_t num_labels = 0;
    stage.upper_bound = best;
    CHECK(find_stage_choices(stage, num_labels).empty());
    stage.upper_bound = best + 1;
    const auto choices = find_stage_choices(stage, num_labels);
    REQUIRE_FALSE(choices.empty());
    for (const GalvatronChoice& choice : choices)
      CHECK(charge(stage, choice.free, choice.sync, choice.resharding) == best);
  }
}

TEST_CASE("a rounded choice fits and is no better than the best", "[galvatron_stage_test]") {
  std::mt19937 random(13);
  for (int round = 0; round < 150; ++round) {
    const GalvatronStage stage = random_stage(random);
    const GalvatronChoice rounded = round_stage(stage);
    if (rounded.options.empty()) continue;
    Cost free = stage.end_free;
    std::int64_t memory = 0;
    for (const int option : rounded.options) {
      free += stage.options[static_cast<std::size_t>(option)].free;
      memory += stage.options[static_cast<std::size_t>(option)].memory;
    }
    CHECK(static_cast<int>(rounded.options.size()) == stage.layers);
    CHECK(free == rounded.free);
    CHECK(memory <= stage.capacity);
    CHECK(rounded.resharding == 0);
  }
}

TEST_CASE("the hull mixes neighbours and drops what lies above", "[galvatron_stage_test]") {
  const GalvatronHull hull({{10, 100}, {20, 90}, {30, 40}, {40, 45}});
  CHECK(hull.least(1, 9) == kNoCost);
  CHECK(hull.least(2, 20) <= 200);
  CHECK(hull.least(2, 20) >= 198);
  // Two of 10 and 30 within 40: 140, less a tick for rounding; never 180, for the point at 20 is above the hull.
  CHECK(hull.least(2, 40) <= 140);
  CHECK(hull.least(2, 40) >= 138);
  CHECK(hull.least(3, 1000) == 120);
  CHECK(GalvatronHull().least(1, 1) == kNoCost);
}

TEST_CASE("of equal options the first stays", "[galvatron_stage_test]") {
  GalvatronLayerOption a, b, c;
  a.free = b.free = c.free = 1;
  a.strategy.dp = 2;
  c.degree = 2;
  const auto kept = undominated({a, b, c});
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].strategy.dp == 2);
  CHECK(kept[1].degree == 2);
}
