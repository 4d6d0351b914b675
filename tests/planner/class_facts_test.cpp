// What each device class does.
#include "planner/class_facts.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("classes tell their devices, samples, blocks, time and memory", "[class_facts_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 29), make_device("c", 1)},
                                      {2, 2, 1}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  const auto plan = make_plan(graph, resources, {{0, 3, {{0, 0}, {0, 1}}, {3, 1}}, {3, 6, {{1, 0}}, {4}}}, 1);
  plan::Estimate estimate;
  plan::DeviceEstimate first, second, third;
  first.device = second.device = "a";
  third.device = "b";
  first.ranks = {0};
  second.ranks = {1};
  third.ranks = {2};
  first.busy_fraction = 0.5;
  second.busy_fraction = 1.0;
  third.busy_fraction = 0.25;
  second.parts.parameters = Bytes(100);
  estimate.devices = {first, second, third};
  const auto facts = class_facts(resources, plan, estimate);
  REQUIRE(facts.size() == 3);
  CHECK(facts[0].used == 2);
  CHECK(facts[0].samples == std::vector<std::int64_t>{1, 3});
  CHECK(facts[0].busy_fraction == Approx(0.75));
  CHECK(facts[0].fullest.total().value == 100);
  CHECK(facts[0].end_block == 3);
  CHECK(facts[1].used == 1);
  CHECK(facts[1].there == 2);
  CHECK(facts[1].first_block == 3);
  CHECK(facts[2].used == 0);
  const std::string table = class_table(facts);
  CHECK(table.find("2 of 2") != std::string::npos);
  CHECK(table.find("[3,6)") != std::string::npos);
  CHECK(class_json(facts).array()[1]["used"].integer() == 1);
}
