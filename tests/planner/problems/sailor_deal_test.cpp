// A sketch dealt to zones: regular ways, and rows.
#include <catch2/catch.hpp>

#include "planner/problems/sailor_zones.h"
#include "tests/planner/problems/sailor_builder.h"

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

namespace {

/// Links of 1.5 x 10^9 bytes a second between the zones, of 1.2 inside "x" and 0.75 inside "y".
SailorInstance make_zones(int count) {
  SailorInstance instance = make_instance(2, 4, {{0, 0, count}, {0, 1, count}});
  for (auto& layer : instance.layers.at(1)) layer->parameters = 25e6;
  for (auto& [ends, curve] : instance.links) {
    curve.c0 = 1.5;
    if (ends.first.zone == ends.second.zone) curve.c0 = ends.first.zone == 0 ? 1.2 : 0.75;
  }
  return instance;
}

}  // namespace

TEST_CASE("rows alternate where the regular ways keep a slow zone together", "[sailor_deal_test]") {
  const SailorInstance instance = make_zones(4);
  const SailorModel model(instance);
  const std::vector<SailorClass> classes = make_classes(model);
  REQUIRE(classes.size() == 1);
  const SailorSketch sketch{1, {{0, 1, {{0, 1, 4}}}, {1, 2, {{0, 1, 4}}}}};
  const auto regular = deal_zones(model, classes, {}, sketch, 1), rows = deal_rows(model, classes, {}, sketch, 2, 1);
  REQUIRE(regular.size() == 1);
  REQUIRE(rows.size() == 1);
  // Reductions of 0.1e9 bytes in 6 steps of 0.025e9. Three transfers of 1e6 bytes: between the zones; inside them.
  const double reductions = 6 * 0.025 / 0.75 - 6 * 0.025 / 1.5, transfers = 3 * 0.001 / 1.5 - 3 * 0.001 / 0.75;
  CHECK(regular[0].estimate.seconds - rows[0].estimate.seconds == Approx(reductions + transfers).epsilon(1e-9));
  CHECK(rows[0].plan.stages[0].replicas.size() == 4);
}

TEST_CASE("both orders of a mixed stage's parts are rows; one zone has none", "[sailor_deal_test]") {
  const SailorInstance one = make_instance(1, 4, {{0, 0, 4}});
  const SailorModel model(one);
  CHECK(deal_rows(model, make_classes(model), {}, {1, {{0, 1, {{0, 1, 4}}}}}, 2, 1).empty());

  SailorInstance two = make_instance(1, 4, {{0, 0, 2}, {0, 1, 2}, {1, 0, 2}, {1, 1, 2}});
  const SailorModel mixed(two);
  const auto classes = make_classes(mixed);
  REQUIRE(classes.size() == 2);
  const auto plans = deal_rows(mixed, classes, {}, {1, {{0, 1, {{0, 1, 2}, {1, 1, 3}}}}}, 2, 9);
  REQUIRE(!plans.empty());
  for (const PricedSailorPlan& each : plans) CHECK(num_replicas(each.plan) == 5);
}
