// Bounds of the search over stages, against the best of all plans.
#include "planner/problems/sailor_stages.h"
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("no plan costs less than the bound of its shape", "[sailor_rest_test]") {
  std::mt19937 random(11);
  int compared = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<SailorPool> pools{{0, 0, 2 + static_cast<int>(random() % 3)}};
    if (random() % 2 == 0) pools.push_back({1, 0, 2});
    const SailorInstance instance = random_instance(random, pools);
    const double best = AllPlans(instance, false).best();
    if (best >= 1e300) continue;
    const SailorModel model(instance);
    const auto classes = make_classes(model);
    const SailorSpans spans(model, classes, 1);
    int gpus = 0;
    for (const SailorPool& pool : instance.pools) gpus += pool.count;
    Cost least = kNoCost;
    for (int replicas = 1; replicas <= gpus; ++replicas) {
      SailorShape shape{1, replicas, model.num_micro_batches(1, replicas) - 1, {}};
      for (std::size_t c = 0; c < classes.size(); ++c)
        shape.whole[c] = static_cast<std::int16_t>(classes[c].count / replicas);
      const SailorRings rings(spans, replicas);
      least = std::min(least, bound_shape(spans, rings, shape, {}));
    }
    CHECK(static_cast<double>(least) <= best * kSailorTicks * (1 + 1e-9));
    ++compared;
  }
  CHECK(compared > 20);
}
