// Devices as counts.
#include "planner/pools.h"

#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

Composition counts(std::int32_t a, std::int32_t b = 0) {
  Composition result;
  result.units.of[0] = result.devices.of[0] = a;
  result.units.of[1] = result.devices.of[1] = b;
  return result;
}

}  // namespace

TEST_CASE("few nodes are pools of their own, many equal ones are one", "[pools_test]") {
  const auto small = make_pools(
      make_cluster({make_device("a", 1), make_device("b", 1)}, {2, 1}, 2, make_link("l", 0, 9), make_link("o", 0, 1)));
  REQUIRE(small.has_value());
  REQUIRE(small->size() == 4);
  CHECK((*small)[0].size() == 2);
  CHECK(devices_of_unit((*small)[0], 1, 1) == std::vector<cluster::DeviceId>{{0, 1}});
  CHECK((*small)[1].size() == 1);
  CHECK(devices_of_unit((*small)[1], 0, 1) == std::vector<cluster::DeviceId>{{1, 0}});
  CHECK(devices_of_unit((*small)[2], 0, 1) == std::vector<cluster::DeviceId>{{0, 2}});
  CHECK((*small)[2].first_node == 1);
  CHECK(all_of(*small).total() == 6);

  const auto large =
      make_pools(make_cluster({make_device("a", 1)}, {8}, 64, make_link("l", 0, 9), make_link("o", 0, 1)));
  REQUIRE(large.has_value());
  REQUIRE(large->size() == 1);
  CHECK(large->front().size() == 512);
  CHECK(large->front().num_units(8) == 64);
  CHECK_FALSE(large->front().one_node());
}

TEST_CASE("a few zones of many nodes are told apart", "[pools_test]") {
  auto graph = make_cluster({make_device("a", 1)}, {4}, 12, make_link("l", 0, 9), make_link("o", 0, 1));
  graph.tiers = {{make_link("rack", 0, 5), 6}, {make_link("zone", 0, 1), 0}};
  const auto pools = make_pools(graph);
  REQUIRE(pools.has_value());
  REQUIRE(pools->size() == 2);
  CHECK((*pools)[1].first_node == 6);
  CHECK(best_link(graph, *pools, counts(4), counts(0, 4), false).bandwidth.value == 1);
  CHECK(best_link(graph, *pools, counts(4), counts(4), false).bandwidth.value == 5);  // whole nodes meet over the rack
  CHECK(best_link(graph, *pools, counts(4), counts(4), true).bandwidth.value == 9);
  CHECK(best_link(graph, *pools, counts(2), counts(2), false).bandwidth.value == 9);
}

TEST_CASE("units are consecutive devices of one node", "[pools_test]") {
  // Nodes of five devices hold two units of two; the fifth is left over.
  const auto pools =
      make_pools(make_cluster({make_device("a", 1)}, {5}, 6, make_link("l", 0, 9), make_link("o", 0, 1)));
  REQUIRE(pools.has_value());
  const Pool& pool = pools->front();
  CHECK(pool.num_units(2) == 12);
  CHECK(pool.devices_of_units(12, 2) == 30);
  CHECK(pool.num_units(8) == 0);
  CHECK(devices_of_unit(pool, 3, 2) == std::vector<cluster::DeviceId>{{0, 7}, {0, 8}});
  // One after the other, of any size, none across nodes.
  std::int64_t used = 0;
  CHECK(take_unit(pool, used, 4).front().index == 0);
  CHECK(take_unit(pool, used, 2).front().index == 5);
  CHECK(take_unit(pool, used, 1).front().index == 7);
  used = 28;
  CHECK(take_unit(pool, used, 2).front().index == 28);
  CHECK(take_unit(pool, used, 1).empty());
  CHECK(first_unit(make_cluster({make_device("a", 1)}, {5}, 6, make_link("l", 0, 9), make_link("o", 0, 1)),
                   {0, {2, 2}, 1}) == std::vector<cluster::DeviceId>{{0, 0}, {0, 1}, {0, 2}, {0, 3}});
}

TEST_CASE("more than twelve kinds of devices are refused by name", "[pools_test]") {
  std::vector<cluster::DeviceClass> classes;
  for (int i = 0; i < 13; ++i) classes.push_back(make_device("d" + std::to_string(i), 1));
  const auto pools = make_pools(
      make_cluster(classes, std::vector<std::int64_t>(13, 1), 1, make_link("l", 0, 9), make_link("o", 0, 1)));
  REQUIRE(!pools.has_value());
  CHECK(pools.error().code == ErrorCode::Unimplemented);
}
