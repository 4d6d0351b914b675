// The trace is valid JSON with one span for every action.
#include "cost_model/cost_model.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("every action is a span on its role's stream", "[trace_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30)}, {2}, 1, make_link("l", 0, 100), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  const auto plan = make_plan(graph, resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 2);
  const auto simulation = simulate(cost, plan);
  REQUIRE(simulation.has_value());
  const auto trace = parse_json(to_chrome_trace(plan, *simulation));
  REQUIRE(trace.has_value());
  std::size_t spans = 0;
  for (const Json& event : (*trace)["traceEvents"].array()) {
    if (event["ph"].string() == "X" && event["name"].string().rfind("wait ", 0) != 0) ++spans;
  }
  CHECK(spans == plan.roles[0].actions.size() + plan.roles[1].actions.size());
}

TEST_CASE("edges back have streams of their own, shown where there are chunks", "[trace_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30)}, {2}, 1, make_link("l", 0, 100), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  const auto trace_of = [&](plan::ScheduleKind kind, int chunks) {
    const auto plan = make_chunked_plan(graph, resources, kind, 2, chunks, 2);
    const auto simulation = simulate(cost, plan);
    REQUIRE(simulation.has_value());
    return to_chrome_trace(plan, *simulation);
  };
  const std::string ring = trace_of(plan::ScheduleKind::Interleaved, 2);
  CHECK(ring.find("activations in, back") != std::string::npos);
  CHECK(ring.find("stage 0 blocks 0-1 3-3, 1 x 1 samples") != std::string::npos);
  const std::string plain = trace_of(plan::ScheduleKind::OneForwardOneBackward, 1);
  CHECK(plain.find(", back\"") == std::string::npos);
}
