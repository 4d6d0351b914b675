// Which families a plan does not belong to.
#include "planner/families.h"

#include <algorithm>

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

const Family* named(const std::vector<Family>& families, const std::string& name) {
  const auto found =
      std::find_if(families.begin(), families.end(), [&](const Family& family) { return family.name == name; });
  return found == families.end() ? nullptr : &*found;
}

}  // namespace

TEST_CASE("a family narrows the request to what the plan is not", "[families_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 30)}, {2, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  request.capabilities = plan::kPlannable;
  request.constraints.schedule = {plan::ScheduleKind::OneForwardOneBackward};
  const auto replicas = make_plan(graph, resources, {{0, 6, {{0, 0}, {0, 1}}, {2, 2}}}, 2);
  const auto families = other_families(request, replicas);
  REQUIRE(named(families, "pipeline parallel") != nullptr);
  CHECK(named(families, "pipeline parallel")->request.constraints.pipeline == std::vector<int>{2, 3});
  REQUIRE(named(families, "no data parallel") != nullptr);
  CHECK(named(families, "ZeRO 0") == nullptr);
  REQUIRE(named(families, "ZeRO 3") != nullptr);
  CHECK(named(families, "micro-batch of 2") != nullptr);
  CHECK(named(families, "micro-batch of 8") != nullptr);
  REQUIRE(named(families, "schedule gpipe") != nullptr);
  CHECK(named(families, "schedule gpipe")->excluded_by == "schedule=1f1b");
  REQUIRE(named(families, "every device at work") != nullptr);
  CHECK(named(families, "every device at work")->request.use_all_devices);
  CHECK(named(families, "without a") == nullptr);  // nothing would be left of the plan

  const auto pipeline = make_plan(graph, resources, {{0, 3, {{0, 0}}, {4}}, {3, 6, {{1, 0}}, {4}}}, 2);
  const auto others = other_families(request, pipeline);
  REQUIRE(named(others, "without b") != nullptr);
  CHECK(named(others, "without b")->request.device_limits == std::vector<std::int64_t>{2, 0});
  CHECK(belongs(*named(families, "pipeline parallel"), pipeline));
  CHECK_FALSE(belongs(*named(families, "pipeline parallel"), replicas));
  CHECK(belongs(*named(families, "no data parallel"), pipeline));
  CHECK_FALSE(belongs(*named(families, "ZeRO 3"), pipeline));
}
