// What a recipe sees of a cluster: one device, its domain, its share of the network.
#include "cost_model/recipe.h"

#include "cluster/catalogue.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;

namespace {

RecipeMachine machine_of(const char* text) {
  const auto graph = cluster::cluster_from_catalogue(text);
  REQUIRE(graph.has_value());
  return recipe_machine(*graph);
}

}  // namespace

TEST_CASE("a node's devices share its link, each has a card", "[recipe_machine_test]") {
  const RecipeMachine machine = machine_of("4x8xh100-sxm,ib400");
  CHECK(machine.domain_devices == 8);
  CHECK(machine.node_link.bandwidth.value.value == Approx(450e9 * 0.8));
  CHECK(machine.network.bandwidth.value.value == Approx(50e9 * 0.9));
  CHECK(machine.after_ampere);
  CHECK(machine.best_8bit.value == Approx(1402.6e12).epsilon(1e-3));  // ml-engineering's MAMF table
}

TEST_CASE("fewer cards than devices are shared", "[recipe_machine_test]") {
  CHECK(machine_of("4x8xa100-80gb-sxm,2xib200").network.bandwidth.value.value == Approx(25e9 * 0.9 / 4));
  CHECK(machine_of("4x8xa100-80gb-sxm,8xib200").network.bandwidth.value.value == Approx(25e9 * 0.9));
}

TEST_CASE("a rack with one link is one domain", "[recipe_machine_test]") {
  CHECK(machine_of("36x4xgb200,ib400").domain_devices == 72);
  CHECK(machine_of("18x4xgb200").domain_devices == 72);
}

TEST_CASE("without bfloat16 the float16 curve counts, without 8 bits none", "[recipe_machine_test]") {
  const RecipeMachine machine = machine_of("1x8xv100-32gb,ib100");
  CHECK(machine.device.peak_bfloat16.value.value == Approx(94.9e12));
  CHECK(machine.best_8bit.value == 0);
  CHECK_FALSE(machine.after_ampere);
}

TEST_CASE("one node has no network but its link", "[recipe_machine_test]") {
  const RecipeMachine machine = machine_of("1x8xa100-80gb-sxm");
  CHECK(machine.network.bandwidth.value.value == machine.node_link.bandwidth.value.value);
}
