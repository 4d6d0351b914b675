// Plans for an order that the user gives.
#include "planner/given_order.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

struct Bench {
  model::ModelGraph graph = make_chain(8, 8);
  cluster::ResourceGraph resources =
      make_cluster({make_device("dev", 1 << 30)}, {4}, 1, make_link("cable", 0, 1e9), make_link("o", 0, 1));
  FakeCost cost{graph, resources};
  Request request;

  Bench(const std::string& csv, std::int64_t global_batch) {
    request.cost = &cost;
    request.global_batch = global_batch;
    auto order = plan::read_schedule_csv(csv);
    REQUIRE(order);
    request.constraints.order = *order;
  }
};

/// By hand: both lines run the last micro-batch's backward first, which none of our schedules does.
const char* const kBackwardsReversed = "0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n";

}  // namespace

TEST_CASE("the plan has the file's stages, micro-batches and order", "[given_order_test]") {
  Bench bench(kBackwardsReversed, 8);
  const auto found = find_plan(bench.request);
  if (!found) FAIL(to_text(found.error()));
  const plan::Plan& plan = found->plan;
  CHECK(plan.schedule == plan::ScheduleKind::Custom);
  CHECK(plan.stages.size() == 2);
  CHECK(plan.batch.count == 2);
  CHECK(plan.batch.micro == 4);
  CHECK(plan::validate(plan, bench.graph, bench.resources).empty());
  CHECK(plan::read_schedule_csv(plan::to_schedule_csv(plan))->stages == bench.request.constraints.order->stages);
  CHECK(found->estimate.step.value > 0);
  CHECK(found->lower_bound_step.value <= found->estimate.step.value);
  CHECK(found->binding_constraint == "the order of computing is given");
}

TEST_CASE("several parts a stage: blocks are cut so that the longest part takes least", "[given_order_test]") {
  Bench bench("0F0,2F0,4F0,4B0,2B0,0B0\n1F0,3F0,5F0,5B0,3B0,1B0\n", 2);
  const auto found = find_plan(bench.request);
  if (!found) FAIL(to_text(found.error()));
  const auto parts = plan::runs_of(found->plan.stages[0]);
  REQUIRE(parts.size() == 3);
  REQUIRE(plan::validate(found->plan, bench.graph, bench.resources).empty());
  // No part could be shorter in the best cut: eight equal blocks over six parts need one of two.
  for (const plan::Stage& stage : found->plan.stages)
    for (const plan::BlockRun& run : plan::runs_of(stage)) CHECK(run.end_block - run.first_block <= 3);
}

TEST_CASE("a V goes down the stages and back up", "[given_order_test]") {
  Bench bench("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0\n", 2);
  const auto found = find_plan(bench.request);
  if (!found) FAIL(to_text(found.error()));
  CHECK(found->plan.schedule == plan::ScheduleKind::CustomV);
  CHECK(found->plan.stages[0].first_block == 0);
  CHECK(found->plan.stages[0].chunks.front().end_block == bench.graph.num_blocks());
}

TEST_CASE("an order that fits no batch, model or constraint is refused, every reason at once", "[given_order_test]") {
  Bench bench(kBackwardsReversed, 7);
  bench.request.constraints.pipeline = {3};
  const auto found = find_plan(bench.request);
  REQUIRE_FALSE(found);
  REQUIRE(found.error().details.size() == 2);
  CHECK(found.error().details[0].path == "batch.global");
  CHECK(found.error().details[1].path == "pipeline");
}
