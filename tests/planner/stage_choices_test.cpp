// Every choice of a stage: splits, states, recompute.
#include <algorithm>

#include "planner/stage_cost.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"
#include "tests/planner/space_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Two blocks of 100 and 10 saved bytes a sample on two equal devices with `memory` bytes beside what stays.
struct Stage {
  model::ModelGraph graph = make_uneven_chain({1, 1, 1}, 1, false);
  cluster::ResourceGraph resources;
  std::unique_ptr<TableCost> cost;
  std::vector<Pool> pools;
  StageContext context;

  explicit Stage(std::int64_t memory) {
    cluster::DeviceClass device = make_device("d", memory);
    device.kind = cluster::DeviceKind::Cuda;
    resources = make_cluster({device}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
    cost = std::make_unique<TableCost>(graph, resources);
    cost->blocks = {{1, 2, 0, 0, 1, 100000, 0}, {1, 2, 0, 0, 1, 10000, 0}};
    cost->speed = {{1, 1}};
    pools = *make_pools(resources);
  }
  std::vector<StageCost> choices(const SpanCosts& spans, std::int64_t micro) {
    Counts both;
    both.of[0] = 2;
    context.spans = &spans;
    context.pools = &pools;
    context.micro = micro;
    context.count = 1;
    context.compositions = {make_composition(pools, both, Axes{})};
    context.exhaustive = true;
    StageCosts costs(context);
    return costs.stage(0, 2, 0, {0, 1}).fitting;
  }
};

}  // namespace

TEST_CASE("all splits of a micro-batch, larger shares first", "[stage_choices_test]") {
  Stage stage(std::int64_t{1} << 40);
  const SpanCosts spans(*stage.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  // 5 = 4 + 1 = 3 + 2.
  const std::vector<StageCost> choices = stage.choices(spans, 5);
  REQUIRE(choices.size() == 2);
  CHECK(std::any_of(choices.begin(), choices.end(),
                    [](const StageCost& one) { return one.shares == std::vector<Share>{{0, 1, 4}, {0, 1, 1}}; }));
  CHECK(std::any_of(choices.begin(), choices.end(),
                    [](const StageCost& one) { return one.shares == std::vector<Share>{{0, 1, 3}, {0, 1, 2}}; }));
  // Nothing that takes longer than is wanted: 3 samples of 6 s each.
  stage.context.at_most = 20'000'000'000;
  CHECK(stage.choices(spans, 5).size() == 1);
}

TEST_CASE("every least list of recomputed blocks that fits", "[stage_choices_test]") {
  using plan::Recompute;
  // 110 kB are kept of a sample; a block that is recomputed keeps next to nothing, but is there once more meanwhile.
  Stage roomy(118000), half(108000), tight(100000);
  const SpanCosts spans(*roomy.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  REQUIRE(roomy.choices(spans, 2).size() == 1);
  CHECK(roomy.choices(spans, 2).front().recompute == std::vector<Recompute>{Recompute::None, Recompute::None});
  const SpanCosts middle(*half.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  REQUIRE(half.choices(middle, 2).size() == 1);
  // The small block's bytes are free again before the large one is recomputed.
  CHECK(half.choices(middle, 2).front().recompute == std::vector<Recompute>{Recompute::Full, Recompute::None});
  const SpanCosts narrow(*tight.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  // 100 kB are there while the large block is recomputed.
  CHECK(tight.choices(narrow, 2).empty());
}
