// Reading instances and tables.
#include "tests/planner/problems/sailor_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::planner::sailor_test;

TEST_CASE("tables are read by column name, unknown GPUs left out", "[sailor_instance_test]") {
  const auto instance = parse_sailor(make_document(), make_texts());
  REQUIRE(instance);
  CHECK(instance->gpus[0].usd_per_hour == 3.5);
  CHECK(instance->gpus[0].memory_bytes == 40 * kGib);
  CHECK(instance->layers.at(1)[2]->activation_numbers == 7);
  REQUIRE(instance->profiles.size() == 1);
  CHECK(instance->profiles.at({0, 1, 1})[1]->compute_seconds == 0.75);
  CHECK(instance->links.at({{0, 0, 1}, {0, 0, 1}}).c1 == 2);
}

TEST_CASE("all problems of a bad Sailor instance are listed", "[sailor_instance_test]") {
  Json document = make_document();
  document["objective"] = "speed";
  document["global_batch"] = 0;
  document["surprise"] = 1;
  const auto bad = parse_sailor(document, make_texts());
  REQUIRE_FALSE(bad);
  CHECK(bad.error().details.size() == 3);

  SailorTexts texts = make_texts();
  texts.gpus = "gpu,memory_gib,gpus_per_node,usd_per_hour\n";
  texts.egress = "from_zone,to_zone\nx,x\n";
  texts.times += "a,1,1,0,2,fast,0.5,0.125\n";
  const auto tables = parse_sailor(make_document(), texts);
  REQUIRE_FALSE(tables);
  CHECK(tables.error().details.size() >= 3);
}
