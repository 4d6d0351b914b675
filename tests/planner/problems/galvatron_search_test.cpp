// The plan found against every plan of small instances: all without a pipeline, and all with the peer's even cut.
#include "planner/problems/galvatron_search.h"

#include <algorithm>
#include <random>

#include "planner/problems/galvatron_cost.h"
#include "tests/planner/problems/galvatron_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain::planner;

namespace {

bool fits(const GalvatronInstance& instance, const GalvatronPlan& plan) {
  const auto memory = stage_memory_mb(instance, plan);
  return memory && *std::max_element(memory->begin(), memory->end()) <= budget_mb(instance);
}

/// Least milliseconds over all strategies of the setting, with layers / pp on each stage; negative: nothing fits.
double try_all(const GalvatronInstance& instance, const GalvatronSetting& setting) {
  const auto strategies = list_strategies(instance, setting, true);
  GalvatronPlan plan{setting.pp, setting.chunks, std::vector<int>(static_cast<std::size_t>(setting.pp)), {}, {}};
  for (int& count : plan.split) count = instance.layers / setting.pp;
  plan.split.back() += instance.layers % setting.pp;
  plan.layers.resize(static_cast<std::size_t>(instance.layers));
  double best = -1;
  for (const GalvatronStrategy& embedding : list_strategies(instance, setting, false)) {
    plan.embedding = embedding;
    std::vector<std::size_t> chosen(plan.layers.size(), 0);
    for (std::size_t i = 0; i < chosen.size();) {
      for (std::size_t layer = 0; layer < chosen.size(); ++layer) plan.layers[layer] = strategies[chosen[layer]];
      const auto ms = estimate_galvatron_ms(instance, plan);
      if (ms && (best < 0 || *ms < best) && fits(instance, plan)) best = *ms;
      for (i = 0; i < chosen.size() && ++chosen[i] == strategies.size(); ++i) chosen[i] = 0;
    }
  }
  return best;
}

GalvatronInstance random_instance(std::mt19937& random, int gpus, int layers) {
  const auto one_of = [&](std::initializer_list<double> values) {
    return values.begin()[std::uniform_int_distribution<std::size_t>(0, values.size() - 1)(random)];
  };
  GalvatronInstance instance = small_galvatron(gpus, layers);
  instance.memory_mb = static_cast<std::int64_t>(one_of({1900, 2600, 3300, 4000, 6000}));
  instance.layer_parameter_mb = one_of({16, 64, 256});
  instance.overlap_slowdown = one_of({1, 1.25, 1.5});
  for (auto& [key, rate] : instance.all_reduce_ms_per_mb) rate *= one_of({0.02, 1, 10});
  for (auto& [degree, messages] : instance.all_gather) messages.line.slope = one_of({0.01, 0.5, 4});
  for (auto& [degree, messages] : instance.all_to_all) messages.line.slope = one_of({0.01, 0.5, 4});
  return instance;
}

/// What a cut other than the peer's is charged, without formula 15 and resharding: no less than it claims to win by.
double charged_ms(const GalvatronInstance& instance, const GalvatronPlan& plan) {
  double sum = 0, slowest = 0;
  std::size_t layer = 0;
  for (int stage = 0; stage < plan.pp; ++stage) {
    double free = *end_ms(instance, {plan.pp, plan.chunks}, plan.embedding, stage);
    for (int i = 0; i < plan.split[static_cast<std::size_t>(stage)]; ++i, ++layer)
      free += *layer_ms(instance, {plan.pp, plan.chunks}, plan.layers[layer], false);
    sum += free;
    slowest = std::max(slowest, free);
  }
  return sum + static_cast<double>(plan.chunks - 1) * slowest;
}

}  // namespace

TEST_CASE("no plan without or with an even pipeline is faster than the one found", "[galvatron_search_test]") {
  std::mt19937 random(5);
  int num_found = 0, num_pipelines = 0;
  for (int round = 0; round < 60; ++round) {
    GalvatronInstance instance = random_instance(random, round % 3 == 0 ? 4 : 2, round % 3 == 0 ? 2 : 4);
    instance.chunks = 2 << round % 2;
    double best = -1;
    for (int pp = 1; pp <= 2; pp *= 2) {
      const double ms = try_all(instance, {pp, *instance.chunks});
      if (ms >= 0 && (best < 0 || ms < best)) best = ms;
    }
    const auto found = search_galvatron(instance);
    if (!found) CHECK(best < 0);
    if (!found) continue;
    ++num_found;
    num_pipelines += found->plan.pp > 1 ? 1 : 0;
    CHECK(fits(instance, found->plan));
    const double ms = *estimate_galvatron_ms(instance, found->plan);
    if (best >= 0) CHECK(ms <= best * (1 + 1e-9));
    if (found->plan.pp == 1) CHECK(ms == Approx(best).epsilon(1e-9));
  }
  CHECK(num_found > 30);
  CHECK(num_pipelines > 3);
  CHECK(num_found - num_pipelines > 3);
}

TEST_CASE("an uneven cut does not win by slow inner stages", "[galvatron_search_test]") {
  // By formula 14 alone, eight layers as 1 3 3 1 would take little more than one pass through them.
  GalvatronInstance instance = small_galvatron(4, 8);
  instance.chunks = 8;
  instance.memory_mb = 20000;
  instance.end_forward_ms = {0, 0};
  for (auto& [key, rate] : instance.all_reduce_ms_per_mb) rate *= 100;
  for (auto* messages : {&instance.all_gather, &instance.all_to_all})
    for (auto& [degree, each] : *messages) each.line.slope = 100;
  const auto found = search_galvatron(instance);
  REQUIRE(found.has_value());
  CHECK(found->plan.pp == 4);
  CHECK(found->plan.split == std::vector<int>{2, 2, 2, 2});
  GalvatronPlan forgotten = found->plan;
  forgotten.split = {1, 3, 3, 1};
  CHECK(*estimate_galvatron_ms(instance, forgotten) < *estimate_galvatron_ms(instance, found->plan));
  CHECK(charged_ms(instance, forgotten) > charged_ms(instance, found->plan));
}

TEST_CASE("a free chunk count is chosen, and a memory too small has no plan", "[galvatron_search_test]") {
  GalvatronInstance instance = small_galvatron(2, 3);
  double best = -1;
  for (const std::int64_t chunks : {1, 2, 4, 8}) {
    instance.chunks = chunks;
    const auto found = search_galvatron(instance);
    if (!found) continue;
    const double ms = *estimate_galvatron_ms(instance, found->plan);
    if (best < 0 || ms < best) best = ms;
  }
  instance.chunks.reset();
  CHECK(*estimate_galvatron_ms(instance, search_galvatron(instance)->plan) == Approx(best).epsilon(1e-9));
  instance.memory_mb = 1100;
  CHECK_FALSE(search_galvatron(instance).has_value());
}
