// A plan as one number per axis, and what that loses.
#include "plan/export_shape.h"

#include "tests/plan/export_plans.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::plan;

TEST_CASE("a uniform plan loses nothing", "[export_shape_test]") {
  const ExportShape shape = shape_of(make_export_plan({.layers = {4, 4}, .data = 2, .tensor = 4}));
  CHECK(shape.lost.empty());
  CHECK(shape.tensor == 4);
  CHECK(shape.data == 2);
  CHECK(shape.pipeline == 2);
  CHECK(shape.virtual_stages == 1);
  CHECK(shape.micro == 2);
  CHECK(shape.count == 4);
  CHECK(shape.global == 16);
  CHECK(shape.stages == std::vector<StageLayers>{{4, 0, 0}, {4, 0, 0}});
  CHECK(shape.places == std::vector<std::string>{"ranks 0-3: node 0, big 0-3", "ranks 4-7: node 1, big 4-7",
                                                 "ranks 8-11: node 2, big 8-11", "ranks 12-15: node 3, big 12-15"});
}

TEST_CASE("stages of unlike shape take that of the fewest devices", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 4, .tensor = 1, .samples = 1});
  // The second stage: two devices as one replica of tensor degree 2 with all four samples.
  Replica wide;
  wide.tensor = 2;
  wide.samples = 4;
  wide.devices = {{0, 4}, {0, 5}};
  plan.stages[1].replicas = {wide};
  const ExportShape shape = shape_of(plan);
  CHECK(shape.tensor == 2);
  CHECK(shape.data == 1);
  CHECK(shape.global == 16);
  CHECK(shape.micro * shape.count * shape.data == 16);
  CHECK(tells(shape.lost, "stage 0: 4 replicas of 1 device (tensor 1), stage 1: 1 replica of 2 devices (tensor 2)"));
  CHECK(tells(shape.lost, "--constrain tensor=2 --constrain data=1"));
}

TEST_CASE("unequal samples become equal ones that divide", "[export_shape_test]") {
  Plan plan = make_export_plan({.data = 2, .samples = 8, .count = 3});  // 16 a micro-batch, 48 in all
  plan.stages[0].replicas[0].samples = 11;
  plan.stages[0].replicas[1].samples = 5;
  const ExportShape shape = shape_of(plan);
  CHECK(shape.micro == 8);
  CHECK(shape.count == 3);
  CHECK(tells(shape.lost, "[11, 5]"));
  CHECK(tells(shape.lost, "--constrain samples=[8, 8]"));

  // Three replicas do not divide a global batch of 16, two do.
  plan = make_export_plan({.data = 3, .samples = 1, .count = 4});
  plan.batch = {16, 4, 4};
  plan.stages[0].replicas[0].samples = 2;
  const ExportShape fewer = shape_of(plan);
  CHECK(fewer.data == 2);
  CHECK(fewer.micro * fewer.count == 8);
  CHECK(tells(fewer.lost, "data degree 3 does not divide the global batch of 16"));
}

TEST_CASE("ZeRO and offload per stage take the one of least memory", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 2});
  plan.stages[1].zero_stage = 2;
  plan.stages[0].offload = Offload::Optimizer;
  const ExportShape shape = shape_of(plan);
  CHECK(shape.zero_stage == 2);
  CHECK(shape.offload == Offload::Optimizer);
  CHECK(tells(shape.lost, "ZeRO per stage ([0, 2])"));
  CHECK(tells(shape.lost, "offload per stage"));
}

TEST_CASE("device classes are told with their ranks", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 2});
  plan.stages[0].replicas[0].devices = {{1, 3}};
  const ExportShape shape = shape_of(plan);
  CHECK(shape.places == std::vector<std::string>{"rank 0: node 8, small 3", "ranks 1-3: node 0, big 1-3"});
  CHECK(tells(shape.lost, "stage 0 mixes device classes (small, big)"));
  CHECK(shape.lost.size() == 1);
}

TEST_CASE("ranks of a host in a row, by stage or by replica or not", "[export_shape_test]") {
  // Two stages of two replicas; the first replica on node 0, the second on node 1.
  Plan plan = make_export_plan({.layers = {4, 4}, .data = 2, .tensor = 2});
  const auto put = [&plan](std::size_t stage, std::size_t replica, std::int64_t first) {
    plan.stages[stage].replicas[replica].devices = {{0, first}, {0, first + 1}};
  };
  put(0, 0, 0);
  put(0, 1, 4);
  put(1, 0, 2);
  put(1, 1, 6);
  ExportShape shape = shape_of(plan);
  CHECK(shape.places.empty());
  CHECK(shape.places_by_replica ==
        std::vector<std::string>{"ranks 0-3: node 0, big 0-3", "ranks 4-7: node 1, big 4-7"});
  CHECK(order_lost(shape).size() == 1);
  CHECK(shape.lost.empty());
  put(1, 0, 6);
  put(1, 1, 2);  // stage 1's replicas swapped: in a row in no order
  shape = shape_of(plan);
  CHECK(shape.places.empty());
  CHECK(shape.places_by_replica.empty());
  put(0, 1, 2);
  put(1, 0, 4);
  put(1, 1, 6);
  CHECK(order_lost(shape_of(plan)).empty());
}

TEST_CASE("stages on the same devices are virtual stages", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {2, 2, 2, 2}});
  plan.schedule = ScheduleKind::Interleaved;
  plan.stages[2].replicas = plan.stages[0].replicas;
  plan.stages[3].replicas = plan.stages[1].replicas;
  const ExportShape shape = shape_of(plan);
  CHECK(shape.pipeline == 2);
  CHECK(shape.virtual_stages == 2);
  CHECK(shape.places.size() == 1);
}

TEST_CASE("recompute is counted for repeated blocks", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {3, 5}});
  for (const std::size_t block : {0U, 2U, 3U}) plan.stages[0].recompute[block] = Recompute::Full;  // 0 is the prologue
  plan.stages[1].recompute[4] = Recompute::Selective;
  const ExportShape shape = shape_of(plan);
  CHECK(shape.stages == std::vector<StageLayers>{{3, 2, 0}, {5, 0, 1}});
  CHECK(shape.ends_recomputed);
  CHECK(total_layers(shape) == StageLayers{8, 2, 1});
  CHECK(layers_text(shape) == "[3, 5]");
  CHECK(!has_even_cuts(shape));
}

TEST_CASE("what is no plan of the model is refused, every problem listed", "[export_shape_test]") {
  Plan plan = make_export_plan({.layers = {4, 4}});
  plan.stages[0].replicas.clear();
  plan.stages[1].end_block = 9;
  plan.stages[1].replicas[0].devices[0] = {1, 4};
  const auto shape = make_export_shape(plan, export_model(), export_cluster());
  REQUIRE(!shape);
  CHECK(shape.error().code == ErrorCode::InvalidArgument);
  CHECK(shape.error().details.size() == 4);  // no replica, no such device, recompute too long, blocks missing
}
