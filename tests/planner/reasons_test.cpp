// Reasons by family and what one change would buy: laws that hold for every instance.
#include <algorithm>

#include "planner/planner.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("no family is better than the plan, and no improvement of the hardware makes it slower", "[reasons_test]") {
  std::mt19937 random(11);
  for (int round = 0; round < 6; ++round) {
    const auto instance = random_instance(random);
    const Request request = instance->request();
    auto found = find_plan(request);
    REQUIRE(found.has_value());
    add_reasons(request, *found);
    const double step = found->estimate.step.value;
    CHECK(found->lower_bound_step.value <= step * (1 + 1e-9));
    std::size_t families = 0;
    for (const Rejected& one : found->rejected) {
      families += one.family.empty() ? 0 : 1;
      CHECK_FALSE(one.reason.empty());
      if (one.step) CHECK(one.step->value >= step * (1 - 0.001));
    }
    CHECK(families > 0);
    for (const Sensitivity& one : found->sensitivities) {
      INFO(one.change);
      const bool less = one.change.ends_with(" less");
      if (less)
        CHECK(one.step.value >= step * (1 - 0.001));
      else
        CHECK(one.step.value <= step * (1 + 1e-9));
    }
  }
}

TEST_CASE("one more device and a faster one, by hand", "[reasons_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {2}, 1, make_link("cable", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 6;
  auto found = find_plan(request);
  REQUIRE(found.has_value());
  add_reasons(request, *found);
  const auto of = [&](const std::string& change) {
    const auto one = std::find_if(found->sensitivities.begin(), found->sensitivities.end(),
                                  [&](const Sensitivity& entry) { return entry.change == change; });
    return one == found->sensitivities.end() ? -1.0 : one->step / found->estimate.step;
  };
  // 6 samples on 3 instead of 2 devices, links nearly free.
  CHECK(of("one more dev") == Approx(2.0 / 3).epsilon(0.02));
  CHECK(of("dev twice as fast") == Approx(0.5).epsilon(0.02));
  CHECK(of("one dev less") == Approx(2).epsilon(0.02));
  CHECK(of("twice the memory of dev") == Approx(1));
  CHECK(of("twice the bandwidth of cable") <= 1);
}
