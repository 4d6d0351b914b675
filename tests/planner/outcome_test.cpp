// Words about results.
#include "planner/outcome.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("runners-up differ in shape", "[outcome_test]") {
  Counts one, two;
  one.of[0] = 1;
  two.of[0] = 2;
  const auto make = [](Cost step, const Counts& units, std::int64_t micro) {
    Simulated simulated;
    simulated.step = step;
    simulated.candidate.micro = micro;
    simulated.candidate.stages = {{0, 3, Composition{units, units, {}, 1}, {}, {}, {}, {}}};
    return simulated;
  };
  const auto picked = pick_diverse({make(1, one, 4), make(2, one, 4), make(3, two, 4), make(4, one, 2)}, 3);
  REQUIRE(picked.size() == 3);
  CHECK(picked[1].step == 3);
  CHECK(picked[2].step == 4);
  CHECK(make(1, one, 4) < make(1, two, 4));  // fewer devices first where both take as long
}

TEST_CASE("what binds is named", "[outcome_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("dev", 1000)}, {2}, 1, make_link("cable", 0, 1e3), make_link("o", 0, 1));
  FakeCost cost(graph, resources);
  auto plan = make_plan(graph, resources, {{0, 3, {{0, 0}}, {1}}, {3, 5, {{0, 1}}, {1}}}, 2);
  plan::Estimate e;
  e.forward = Seconds(1);
  e.backward = Seconds(2);
  plan::DeviceEstimate device;
  device.device = "dev";
  device.capacity = Bytes(1000);
  e.devices = {device};
  CHECK(describe_binding(cost, plan, e) == "compute of dev");
  e.bubble = Seconds(1);
  CHECK(describe_binding(cost, plan, e).find("idle") == 0);
  e.communication_exposed = Seconds(2);
  CHECK(describe_binding(cost, plan, e) == "communication over cable");
  e.devices[0].parts.parameters = Bytes(950);
  CHECK(describe_binding(cost, plan, e).find("memory of dev") == 0);

  cluster::ResourceGraph changeable = resources;
  const auto links = links_in_use(changeable, plan);
  REQUIRE(links.size() == 1);
  CHECK(links[0]->name == "cable");
}

TEST_CASE("an infeasible request is told the least that is missing and what would do", "[outcome_test]") {
  // Each layer alone needs 16 bytes a parameter = 4 KiB and a margin; two devices of 9,000 bytes hold two layers each.
  const model::ModelGraph graph = make_chain(6, 16);
  const auto resources =
      make_cluster({make_device("dev", 9000)}, {2}, 1, make_link("cable", 0, 1e3), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 2;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  const Error error = describe_infeasible(*space, {1, 1 << 20, 0, 3, 0});
  CHECK(error.code == ErrorCode::ResourceExhausted);
  CHECK(error.message.find("missing on dev") != std::string::npos);
  CHECK(error.hint.find("devices like dev") != std::string::npos);
}
