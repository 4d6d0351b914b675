// Which source speaks: profile before roofline, by block signature and device class.
#include "cost_model/cost_model.h"

#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("a profile overrides the roofline where it has an entry", "[production_model_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = make_cluster({make_device("fast", 1 << 30), make_device("slow", 1 << 30)}, {1, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  cluster::Profile profile;
  profile.blocks = {{"layer", "fast", 2, Seconds(4), Seconds(8), Bytes(100), Bytes(50)}};
  profile.devices = {{"fast", Seconds(1), Seconds(2), Seconds(5), Seconds(7), Bytes(11)}};
  const auto cost = make_cost_model(graph, resources, &profile);

  CHECK(cost->estimate_block({2, 0, 2}).measured);
  CHECK(cost->estimate_block({3, 0, 4}).forward.value == Approx(8));
  CHECK_FALSE(cost->estimate_block({2, 1, 2}).measured);
  // C12: bytes are those of the rules, whatever the profile's.
  CHECK(cost->estimate_block({2, 0, 2}).saved == cost->estimate_block({2, 1, 2}).saved);
  // C28: the measured backward splits as the roofline's does.
  const BlockTime plain = cost->estimate_block({2, 1, 2});
  CHECK(plain.weight.value > 0);
  CHECK(cost->estimate_block({2, 0, 2}).weight.value == Approx(8 * plain.weight.value / plain.backward.value));
  CHECK_FALSE(cost->estimate_block({4, 0, 2}).measured);
  CHECK(cost->estimate_optimizer(10, 0).value == Approx(30));
  CHECK(cost->estimate_step_overhead(0).value == 5);
  CHECK(cost->estimate_action_overhead(0).value == 7);
  CHECK(cost->base_memory(0).value == 11);
  CHECK(cost->estimate_step_overhead(1).value == 0);
  CHECK(cost->estimate_optimizer(1000, 1).value == Approx(32e3 / 1e9));
}

TEST_CASE("C12, C54: a mesh scales what grows with samples, and nothing else", "[production_model_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  // 3 s and 2 s a sample; 6 s and 4 s.
  cluster::Profile profile;
  for (const std::int64_t samples : {1, 2, 4})
    profile.blocks.push_back({"layer", "d", samples, Seconds(3 + 2.0 * static_cast<double>(samples)),
                              Seconds(6 + 4.0 * static_cast<double>(samples)), Bytes(0), Bytes(0)});
  const auto cost = make_cost_model(graph, resources, &profile), rules = make_cost_model(graph, resources, nullptr);
  const auto forward = [](const cost_model::CostModel& model, std::int64_t samples, int tensor) {
    return model.estimate_block({2, 0, samples, plan::Precision::Float32, tensor}).forward.value;
  };
  // The rules' times are nanoseconds: of what does not grow they know nothing beside 3 s.
  const double part = forward(*rules, 4, 2) / forward(*rules, 4, 1);
  CHECK(part < 0.9);
  CHECK(forward(*cost, 4, 1) == Approx(11));
  CHECK(forward(*cost, 4, 2) == Approx(3 + 8 * part));
}
