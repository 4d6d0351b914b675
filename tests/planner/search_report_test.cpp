// From what a search ends with to a result or an error.
#include "planner/search_report.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("one search gives what find_plan gives, without sensitivities", "[search_report_test]") {
  std::mt19937 random(3);
  const auto instance = random_instance(random);
  const auto once = search_once(instance->request()), found = find_plan(instance->request());
  REQUIRE(once.has_value());
  REQUIRE(found.has_value());
  CHECK(once->plan == found->plan);
  CHECK(once->estimate == found->estimate);
  CHECK(once->sensitivities.empty());
}

TEST_CASE("a search that found nothing says whether memory or the constraints stood in the way",
          "[search_report_test]") {
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
  SearchOutcome outcome;
  outcome.costed = 17;
  const auto contradiction = report_search(*space, outcome);
  REQUIRE_FALSE(contradiction.has_value());
  CHECK(contradiction.error().code == ErrorCode::InvalidArgument);
  CHECK(contradiction.error().got == "none of 17 candidates");
  outcome.misfit = {1, 1 << 20, 0, 3, 0};
  CHECK(report_search(*space, outcome).error().code == ErrorCode::ResourceExhausted);
}
