// Parts of a cluster.
#include "planner/device_limits.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("a limit leaves the first devices of a class, with their ids", "[device_limits_test]") {
  const auto resources =
      make_cluster({make_device("a", 1), make_device("b", 1)}, {2, 1}, 2, make_link("l", 0, 1), make_link("o", 0, 1));
  auto pools = make_pools(resources);
  REQUIRE(pools.has_value());
  limit_pools(*pools, {3, 0});
  std::vector<cluster::DeviceId> left;
  for (const Pool& pool : *pools) {
    std::int64_t used = 0;
    while (used < pool.size()) {
      const auto unit = take_unit(pool, used, 1);
      left.insert(left.end(), unit.begin(), unit.end());
    }
  }
  CHECK(left == std::vector<cluster::DeviceId>{{0, 0}, {0, 1}, {0, 2}});
  limit_pools(*pools, {});
  CHECK(all_of(*pools).total() == 3);
}

TEST_CASE("choices are all, halves in whole nodes, and none, of each class, within the number asked for",
          "[device_limits_test]") {
  const auto one = make_cluster({make_device("a", 1)}, {4}, 4, make_link("l", 0, 1), make_link("o", 0, 1));
  // 16, 8, 4 = one node, 2, 1.
  CHECK(limit_choices(one, 32) == std::vector<std::vector<std::int64_t>>{{16}, {8}, {4}, {2}, {1}});
  const auto two =
      make_cluster({make_device("a", 1), make_device("b", 1)}, {2, 1}, 1, make_link("l", 0, 1), make_link("o", 0, 1));
  // (2, 1, 0) x (1, 0) without (0, 0).
  CHECK(limit_choices(two, 32).size() == 5);
  CHECK(limit_choices(two, 3).size() == 3);
  CHECK(limit_choices(two, 3).front() == std::vector<std::int64_t>{2, 1});
}
