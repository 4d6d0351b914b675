// One inner search and the placing of its candidates.
#include "planner/search.h"

#include <set>

#include "plan/program.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("candidates come in order of their bounds and become valid plans", "[search_test]") {
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    const auto instance = random_instance(random);
    const Request request = instance->request();
    auto space = make_search_space(request);
    REQUIRE(space.has_value());
    const SpanCosts spans(*instance->cost, request.precision, RecomputeRule::Free, {});
    space->spans = &spans;
    SearchLimits limits;
    limits.max_results = 5;
    limits.alternatives = 2;
    for (const Combination& one : make_combinations(*space)) {
      const auto found = search_combination(*space, one, kNoCost, limits);
      for (std::size_t i = 0; i < found.candidates.size(); ++i) {
        if (i > 0) CHECK(found.candidates[i - 1].bound <= found.candidates[i].bound);
        CHECK(found.lower_bound <= found.candidates[i].bound);
        plan::Plan plan = place_candidate(*space, found.candidates[i]);
        plan.model_hash = model::model_hash(instance->graph);
        plan.cluster_hash = cluster::cluster_hash(instance->resources);
        CHECK(plan::validate(plan, instance->graph, instance->resources).empty());
      }
    }
  }
}

TEST_CASE("spread puts each pipeline inside a node, packed each stage", "[search_test]") {
  const model::ModelGraph graph = make_chain(6, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {4}, 8, make_link("l", 0, 1e9), make_link("o", 0, 1e8));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 32;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  Counts units;
  units.of[0] = 8;
  const Composition eight = make_composition(space->pools, units, Axes{});
  Candidate candidate{0, plan::ScheduleKind::OneForwardOneBackward, 32, 1, false, {}};
  for (int s = 0; s < 4; ++s)
    candidate.stages.push_back({2 * s,
                                2 * s + 2,
                                eight,
                                std::vector<Share>{{0, 8, 4}},
                                std::vector<plan::Recompute>(2, plan::Recompute::None),
                                {},
                                {}});
  const auto nodes_of = [&](const plan::Plan& plan, int stage) {
    std::set<std::int64_t> nodes;
    for (const plan::Replica& replica : plan.stages[static_cast<std::size_t>(stage)].replicas)
      nodes.insert(cluster::locate(resources, replica.devices.front()).node);
    return nodes;
  };
  CHECK(nodes_of(place_candidate(*space, candidate), 1) == std::set<std::int64_t>{2, 3});
  candidate.spread = true;
  const plan::Plan spread = place_candidate(*space, candidate);
  CHECK(nodes_of(spread, 1).size() == 8);
  CHECK(cluster::locate(resources, spread.stages[0].replicas[5].devices.front()).node ==
        cluster::locate(resources, spread.stages[3].replicas[5].devices.front()).node);
}
