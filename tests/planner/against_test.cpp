// Why not that other plan: rules, memory, time.
#include "planner/explain.h"
#include "planner/search.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

struct World {
  model::ModelGraph graph = make_chain(6, 16);
  cluster::ResourceGraph resources =
      make_cluster({make_device("dev", 20000)}, {2}, 1, make_link("l", 1e-6, 1e9), make_link("o", 0, 1));
  FakeCost cost{graph, resources};
  plan::Plan halves = make_plan(graph, resources, {{0, 4, {{0, 0}}, {2}}, {4, 8, {{0, 1}}, {2}}}, 2);
  plan::Estimate ours = cost_model::simulate(cost, halves)->estimate;
};

bool any_has(const std::vector<std::string>& sentences, const std::string& words) {
  for (const std::string& sentence : sentences) {
    if (sentence.find(words) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a plan that breaks a rule is told the rule and not simulated", "[against_test]") {
  const World world;
  plan::Plan broken = world.halves;
  broken.stages[1].replicas[0].devices = {{0, 0}};
  const Against against = compare_with(world.cost, world.halves, world.ours, broken);
  CHECK(against.verdict.find("cannot run: it breaks") != std::string::npos);
  REQUIRE_FALSE(against.reasons.empty());
  CHECK(any_has(against.reasons, "stages[1]"));
  CHECK_FALSE(against.estimate.has_value());
}

TEST_CASE("a plan that does not fit is told where, by how much and what would fit", "[against_test]") {
  const World world;
  // 24 KiB of weights, gradients and optimizer on each of two devices of 20,000 bytes; ZeRO 1 leaves 18 KiB.
  const auto whole = make_plan(world.graph, world.resources, {{0, 8, {{0, 0}, {0, 1}}, {1, 1}}}, 2);
  const Against against = compare_with(world.cost, world.halves, world.ours, whole);
  CHECK(against.verdict.find("does not fit into memory: ") != std::string::npos);
  CHECK(against.verdict.find("missing on dev") != std::string::npos);
  CHECK(any_has(against.reasons, "stage 0 on dev needs"));
  CHECK(any_has(against.reasons, "it would fit with"));
  CHECK(any_has(against.reasons, "zero=2"));
  CHECK(any_has(against.reasons, "memory aside it is"));
}

TEST_CASE("a slower plan is told by which part and what is laid out otherwise", "[against_test]") {
  const World world;
  const auto recomputing =
      make_plan(world.graph, world.resources,
                {{0, 4, {{0, 0}}, {2}, plan::Recompute::Full}, {4, 8, {{0, 1}}, {2}, plan::Recompute::Full}}, 2);
  const Against against = compare_with(world.cost, world.halves, world.ours, recomputing);
  CHECK(against.verdict.find("slower, mostly by recompute") != std::string::npos);
  REQUIRE_FALSE(against.reasons.empty());
  CHECK(against.reasons.front() == "it recomputes 8 blocks where this one recomputes 0 blocks");
}
