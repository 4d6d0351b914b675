// C12: what a profile leaves open, counted on paper.
#include "cost_model/uncertainty.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("C12: a step is as uncertain as the blocks that were not measured with its samples", "[uncertainty_test]") {
  const model::ModelGraph graph = make_chain(2, 16);
  const auto resources = make_cluster({make_device("d", std::int64_t{1} << 40)}, {2}, 1, make_link("l", 1e-5, 1e9),
                                      make_link("o", 0, 1e9));
  cluster::Profile profile;
  const auto add = [&](const std::string& signature, std::int64_t samples, double forward) {
    profile.blocks.push_back({signature, "d", samples, Seconds(forward), Seconds(2 * forward), Bytes(0), Bytes(0)});
  };
  // Out of order: a profile that was made by hand.
  add("layer", 4, 5);
  add("layer", 2, 3);
  add("first", 3, 4);
  add("loss", 3, 2);
  add("loss", 1, 1);
  const auto cost = make_cost_model(graph, resources, &profile);
  const auto plan_of = [&](std::vector<std::int64_t> samples) {
    std::vector<plan::DeviceId> devices;
    for (std::size_t r = 0; r < samples.size(); ++r) devices.push_back({0, static_cast<std::int64_t>(r)});
    return make_plan(graph, resources, {{0, 4, devices, samples}}, 1);
  };
  // `layer` with 3 samples: 4 by the line, 4.5 and 3.75 by the shares of its points: 0.75 / 2 / 4.
  const Uncertainty of_three = estimate_uncertainty(*cost, profile, plan_of({3}));
  CHECK(of_three.step_fraction == Approx(0.09375 * 4 / (4 + 4 + 2)));
  CHECK(of_three.num_blocks == 4);
  CHECK(of_three.num_interpolated == 1);
  // With 2 samples it was measured; `first` has its share 8/3 or the whole 4, `loss` 1.5 by the line, 2 or 4/3 by
  // shares.
  const Uncertainty of_two = estimate_uncertainty(*cost, profile, plan_of({2}));
  const double first = (4 - 8.0 / 3) / 2, loss = (2 - 4.0 / 3) / 2;
  CHECK(of_two.step_fraction == Approx((first + loss) / (8.0 / 3 + 3 + 1.5)));
  // The rank that is known least counts.
  CHECK(estimate_uncertainty(*cost, profile, plan_of({3, 2})).step_fraction == Approx(of_two.step_fraction));
  CHECK(estimate_uncertainty(*cost, profile, plan_of({3, 2})).num_blocks == 8);
}
