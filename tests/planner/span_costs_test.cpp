// Prefix sums against the cost model's own sums, and recompute against what it must free.
#include "planner/span_costs.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

struct Fixture {
  model::ModelGraph graph = make_chain(5, 8, true);
  cluster::ResourceGraph resources;
  std::unique_ptr<FakeCost> cost;

  explicit Fixture(std::int64_t memory) {
    resources = make_cluster({make_device("d", memory)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
    cost = std::make_unique<FakeCost>(graph, resources);
    cost->forward = {0, 1, 2, 3, 4, 5, 6};
    cost->saved = {0, 9000, 1000, 1000, 5000, 1000, 10};
  }
};

}  // namespace

TEST_CASE("a span's time is the sum of its blocks", "[span_costs_test]") {
  Fixture f(1 << 30);
  f.cost->action_overhead = 0.25;
  const SpanCosts spans(*f.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  const SampleTable& table = spans.table({0, {}, 1}, 2);
  CHECK(spans.forward(table, 2, 5) == (2 + 3 + 4) * 2'000'000'000LL + 250'000'000);
  CHECK(spans.backward(table, 2, 5) == (2 + 3 + 4) * 4'000'000'000LL + 250'000'000);
  CHECK(spans.has_work(1, 2));
  CHECK_FALSE(spans.has_work(0, 1));
  CHECK(spans.buckets(1, 4, Bytes(1)) == std::vector<std::int64_t>{256, 256});  // layer 0 is tied to the epilogue
  CHECK(spans.buckets(1, 7, Bytes(1 << 20)) == std::vector<std::int64_t>{5 * 256});
}

TEST_CASE("a span's memory is what estimate_memory says of the stage", "[span_costs_test]") {
  Fixture f(1 << 30);
  const SpanCosts spans(*f.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  auto plan = make_plan(f.graph, f.resources, {{0, 4, {{0, 0}}, {3}}, {4, 7, {{0, 1}}, {3}}}, 4);
  CHECK(spans.fit(spans.table({0, {}, 1}, 3), {0, 4, 2, 2}).bytes ==
        cost_model::estimate_memory(*f.cost, plan, 0, 0).total().value);
  CHECK(spans.fit(spans.table({0, {}, 1}, 3), {4, 7, 1, 2}).bytes ==
        cost_model::estimate_memory(*f.cost, plan, 1, 0).total().value);
  plan.stages[0].recompute = {plan::Recompute::None, plan::Recompute::Full, plan::Recompute::None,
                              plan::Recompute::Full};
  CHECK(spans.fit(spans.table({0, {}, 1}, 3), {0, 4, 2, 2}, plan.stages[0].recompute).bytes ==
        cost_model::estimate_memory(*f.cost, plan, 0, 0).total().value);
}

TEST_CASE("what a fit adds up step by step is what its list weighs at once", "[span_costs_test]") {
  const SpanQuery query{0, 7, 3, 2};
  int recomputing = 0;
  for (std::int64_t memory = 5000; memory < 60000; memory += 1000) {
    Fixture f(memory);
    f.cost->selective_share = 0.5;
    const SpanCosts spans(*f.cost, plan::Precision::Float32, RecomputeRule::Free, {}, true);
    const SampleTable& table = spans.table({0, {}, 1}, 1);
    const Fit fit = spans.fit(table, query);
    cost_model::HeldRun held;
    for (std::size_t block = 0; block < 7; ++block) held.add(table.holds(block, fit.recompute[block]));
    CHECK(fit.bytes == spans.room(table, query).bytes(held));
    CHECK(fit.fits == (fit.bytes <= memory));
    if (fit.fits && fit.recompute != std::vector<plan::Recompute>(7, plan::Recompute::None)) ++recomputing;
  }
  CHECK(recomputing > 5);
}

TEST_CASE("the fewest blocks are recomputed that fit, best bytes for a second first", "[span_costs_test]") {
  // Layer 0 saves 9000 bytes for 1 s of replay: it is first, then layer 3 (5000 for 4 s).
  Fixture roomy(1 << 30);
  const std::int64_t all =
      SpanCosts(*roomy.cost, plan::Precision::Float32, RecomputeRule::None, {})
          .fit(SpanCosts(*roomy.cost, plan::Precision::Float32, RecomputeRule::None, {}).table({0, {}, 1}, 1),
               {0, 7, 3, 2})
          .bytes;
  Fixture tight(all - 1);
  const SpanCosts spans(*tight.cost, plan::Precision::Float32, RecomputeRule::Free, {});
  const Fit fit = spans.fit(spans.table({0, {}, 1}, 1), {0, 7, 3, 2});
  CHECK(fit.fits);
  CHECK(fit.recompute[1] == plan::Recompute::Full);
  CHECK(std::count(fit.recompute.begin(), fit.recompute.end(), plan::Recompute::Full) == 1);
  const SpanCosts never(*tight.cost, plan::Precision::Float32, RecomputeRule::None, {});
  CHECK_FALSE(never.fit(never.table({0, {}, 1}, 1), {0, 7, 3, 2}).fits);
  const SpanCosts always(*tight.cost, plan::Precision::Float32, RecomputeRule::Full, {});
  const Fit full = always.fit(always.table({0, {}, 1}, 1), {0, 7, 3, 2});
  CHECK(std::count(full.recompute.begin(), full.recompute.end(), plan::Recompute::Full) == 7);
  const SpanCosts listed(*tight.cost, plan::Precision::Float32, RecomputeRule::Listed, {0, 0, 0, 1, 0, 0, 0});
  CHECK(listed.fit(listed.table({0, {}, 1}, 1), {2, 5, 1, 2}).recompute[1] == plan::Recompute::Full);
}
