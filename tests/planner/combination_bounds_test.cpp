// Bounds that order the outer loop.
#include "planner/combination_bounds.h"

#include "cost_model/cost_model.h"
#include "model/load.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("C24: one stage is all work on its units, more stages wait to fill", "[combination_bounds_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  cluster::DeviceClass device = make_device("d", std::int64_t{1} << 40);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 6, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e8));
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1, 0};  // 12 s a sample, both ways
  Request request;
  request.cost = &cost;
  request.global_batch = 24;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  Counts units;
  units.of[0] = 6;
  Combination one;
  one.micro = 6;
  one.count = 4;
  one.compositions = std::make_shared<const std::vector<Composition>>(1, make_composition(space->pools, units, Axes{}));
  const FamilyBounds bounds(*space, one, longest_run(spans));
  const auto seconds = [](Cost cost_ticks) { return static_cast<double>(cost_ticks) * 1e-9; };
  // Four micro-batches of one sample a replica.
  one.max_stages = 1;
  CHECK(seconds(bounds.fill(one)) == Approx(48));
  // Two stages: 12 / (1 - (1 - 1/4)^2).
  one.max_stages = 2;
  CHECK(seconds(bounds.fill(one)) == Approx(12 / (1 - 0.5625)));
  set_bounds(*space, std::span(&one, 1));
  CHECK(one.bound >= bounds.fill(one));
  // C27 of one pool: stages of 6 units, each 3/4 of the one before: 24 x 12 / (6 x 1.75).
  CHECK(seconds(bounds.ramp(one)) == Approx(24 * 12 / (6 * 1.75)));
  // C23: 24 devices.
  CHECK(seconds(work_of_space(*space)) == Approx(12));
}

TEST_CASE("C23: axes that together need more devices than there are have no part in the bound",
          "[combination_bounds_test]") {
  const auto graph = model::build_from_config(JsonObject{{"model_type", "mixtral"},
                                                         {"num_hidden_layers", 2},
                                                         {"num_attention_heads", 8},
                                                         {"num_key_value_heads", 2},
                                                         {"hidden_size", 64},
                                                         {"intermediate_size", 96},
                                                         {"vocab_size", 64},
                                                         {"max_position_embeddings", 16},
                                                         {"num_local_experts", 4},
                                                         {"num_experts_per_tok", 2}},
                                              {.sequence_length = 16});
  REQUIRE(graph);
  const auto resources = make_cluster({make_device("d", std::int64_t{1} << 40)}, {4}, 1, make_link("l", 1e-6, 1e9),
                                      make_link("o", 1e-6, 1e8));
  const auto cost = cost_model::make_cost_model(*graph, resources, nullptr);
  Request request;
  request.cost = cost.get();
  request.global_batch = 8;
  request.capabilities = plan::kPlannable;
  request.constraints.tensor = {2};
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  // Two devices for each of four groups of experts would be eight.
  REQUIRE(std::find(space->experts.begin(), space->experts.end(), 4) != space->experts.end());
  const SpanCosts spans(*cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  const Cost bound = work_of_space(*space);
  CHECK(bound > 0);
  space->experts = {1, 2};
  CHECK(work_of_space(*space) == bound);
}
