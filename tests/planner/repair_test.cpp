// Repairs of a running plan, worked out by hand.
#include "planner/repair.h"

#include "plan/program.h"
#include "tests/planner/random_moves.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Two pipelines of two stages on four of six devices: blocks [0,3) on 0 and 1, the rest on 2 and 3.
struct Scene {
  model::ModelGraph graph = make_chain(4, 8);
  cluster::ResourceGraph before = make_cluster({make_device("a", 1 << 30)}, {6}, 1, make_link("l", 0, 1e9), {});
  plan::Plan running =
      make_plan(graph, before, {{0, 3, {{0, 0}, {0, 1}}, {2, 2}}, {3, 6, {{0, 2}, {0, 3}}, {2, 2}}}, 3);
  cluster::ChangedCluster changed;
  std::unique_ptr<FakeCost> cost;
  Request request;

  explicit Scene(const cluster::ClusterChange& change) {
    changed = *cluster::apply_change(before, change);
    cost = std::make_unique<FakeCost>(graph, changed.graph);
    for (const auto& slowed : changed.slowed)
      cost->speed[static_cast<std::size_t>(slowed.device_class)] = slowed.rate_fraction;
    request.cost = cost.get();
    request.global_batch = 12;
    request.running = RunningPlan{running, changed.devices, Seconds(100)};
  }
};

const RepairedPlan* find_repair(const std::vector<RepairedPlan>& plans, const std::string& how) {
  for (const RepairedPlan& one : plans) {
    if (one.how == how) return &one;
  }
  return nullptr;
}

std::vector<plan::DeviceId> devices_of(const plan::Stage& stage) {
  std::vector<plan::DeviceId> devices;
  for (const plan::Replica& replica : stage.replicas) devices.push_back(replica.devices.front());
  return devices;
}

std::vector<std::int64_t> samples_of(const plan::Stage& stage) {
  std::vector<std::int64_t> samples;
  for (const plan::Replica& replica : stage.replicas) samples.push_back(replica.samples);
  return samples;
}

}  // namespace

TEST_CASE("samples are shared out by speed, at least one each", "[repair_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources =
      make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 30)}, {2, 2}, 1, make_link("l", 0, 1e9), {});
  FakeCost cost(graph, resources);
  cost.speed[1] = 0.5;
  std::vector<plan::Replica> replicas(3);
  replicas[0].devices = {{0, 0}};
  replicas[1].devices = {{1, 0}};
  replicas[2].devices = {{0, 1}};
  using Samples = std::vector<std::int64_t>;
  CHECK(share_samples(cost, plan::Precision::Float32, 0, 4, replicas, 10) == Samples{4, 2, 4});
  CHECK(share_samples(cost, plan::Precision::Float32, 0, 4, replicas, 3) == Samples{1, 1, 1});
  CHECK(share_samples(cost, plan::Precision::Float32, 0, 4, replicas, 2).empty());
  cost.speed[1] = 1e-6;
  CHECK(share_samples(cost, plan::Precision::Float32, 0, 4, replicas, 7) == Samples{3, 1, 3});
}

TEST_CASE("where nothing is lost the running plan comes first", "[repair_test]") {
  const Scene scene({{}, {{"a", 1, 1, 0.25}}, {}});
  const auto plans = repair_plan(scene.request);
  REQUIRE_FALSE(plans.empty());
  CHECK(plans[0].how == "the running plan");
  CHECK(is_same_plan(scene.running, scene.changed.devices, plans[0].plan));
  CHECK(plans[0].plan.cluster_hash == cluster::cluster_hash(scene.changed.graph));
  // A quarter of the speed: 3.2 and 0.8 of four samples.
  const RepairedPlan* shared = find_repair(plans, "samples shared out anew");
  REQUIRE(shared != nullptr);
  CHECK(samples_of(shared->plan.stages[0]) == std::vector<std::int64_t>{3, 1});
  CHECK(samples_of(shared->plan.stages[1]) == std::vector<std::int64_t>{2, 2});
  // Two spare devices: a third pipeline.
  const RepairedPlan* more = find_repair(plans, "more replicas on spare devices");
  REQUIRE(more != nullptr);
  CHECK(more->plan.stages[0].replicas.size() == 3);
  CHECK(more->plan.stages[1].replicas.size() == 3);
}

TEST_CASE("a lost device is replaced, or its replica or pipeline left out", "[repair_test]") {
  // Device 1 is lost; 4 and 5 were spare and are 3 and 4 now.
  const Scene scene({{{"a", 1, 1}}, {}, {}});
  const auto plans = repair_plan(scene.request);
  const RepairedPlan* replaced = find_repair(plans, "spare devices in place of lost ones");
  REQUIRE(replaced != nullptr);
  CHECK(devices_of(replaced->plan.stages[0]) == std::vector<plan::DeviceId>{{0, 0}, {0, 3}});
  CHECK(devices_of(replaced->plan.stages[1]) == std::vector<plan::DeviceId>{{0, 1}, {0, 2}});
  CHECK(samples_of(replaced->plan.stages[0]) == std::vector<std::int64_t>{2, 2});
  const RepairedPlan* without = find_repair(plans, "without the replicas that lost a device");
  REQUIRE(without != nullptr);
  CHECK(devices_of(without->plan.stages[0]) == std::vector<plan::DeviceId>{{0, 0}});
  CHECK(samples_of(without->plan.stages[0]) == std::vector<std::int64_t>{4});
  CHECK(samples_of(without->plan.stages[1]) == std::vector<std::int64_t>{2, 2});
  const RepairedPlan* pipelines = find_repair(plans, "without the pipelines that lost a device");
  REQUIRE(pipelines != nullptr);
  CHECK(pipelines->plan.stages[1].replicas.size() == 1);
  CHECK(find_repair(plans, "the running plan") == nullptr);
  for (const RepairedPlan& one : plans) CHECK(plan::validate(one.plan, scene.graph, scene.changed.graph).empty());
}

TEST_CASE("a stage that lost every replica needs spare devices", "[repair_test]") {
  const Scene scene({{{"a", 2, 5}}, {}, {}});
  CHECK(repair_plan(scene.request).empty());
}

TEST_CASE("a mesh is filled on its own node or moves as a whole", "[repair_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto before = make_cluster({make_device("a", 1 << 30)}, {3}, 3, make_link("l", 0, 1e9), make_link("o", 0, 1e8));
  auto running = make_plan(graph, before, {{0, 4, {{0, 0}, {0, 3}}, {2, 2}}}, 1);
  for (std::size_t r = 0; r < 2; ++r) {
    running.stages[0].replicas[r].devices.push_back({0, static_cast<std::int64_t>(3 * r) + 1});
    running.stages[0].replicas[r].tensor = 2;
  }
  const FakeCost cost(graph, before);
  Request request;
  request.cost = &cost;
  request.global_batch = 4;
  request.capabilities = plan::kPlannable;
  request.running = RunningPlan{running, cluster::identity_map(before), Seconds(1)};
  // Node 0 has a third device for the mesh's second place; node 1's is gone as well, so that mesh goes to node 2.
  request.running->devices[0][1].reset();
  request.running->devices[0][4].reset();
  request.running->devices[0][5].reset();
  auto plans = repair_plan(request);
  // The map says which are lost; the graph here still lists them, so spare are only those that nobody stands on.
  const RepairedPlan* replaced = find_repair(plans, "spare devices in place of lost ones");
  REQUIRE(replaced != nullptr);
  const auto& replicas = replaced->plan.stages[0].replicas;
  CHECK(cluster::locate(before, replicas[0].devices[1]).node == 0);
  CHECK(cluster::locate(before, replicas[1].devices[0]).node == cluster::locate(before, replicas[1].devices[1]).node);
}

TEST_CASE("repairs keep to the constraints", "[repair_test]") {
  Scene scene({{{"a", 1, 1}}, {}, {}});
  scene.request.constraints.data = {2};
  for (const RepairedPlan& one : repair_plan(scene.request)) {
    for (const plan::Stage& stage : one.plan.stages) CHECK(stage.replicas.size() == 2);
  }
  scene.request.constraints = {};
  scene.request.capabilities.max_zero_stage = 0;
  scene.request.running->plan.stages[0].zero_stage = 1;
  CHECK(repair_plan(scene.request).empty());

  Constraints constraints;
  const plan::Plan& plan = scene.running;
  CHECK(meets(constraints, plan));
  constraints.cuts = "[3]";
  CHECK(meets(constraints, plan));
  constraints.cuts = "even";
  CHECK(meets(constraints, plan));
  constraints.cuts = "[2]";
  CHECK_FALSE(meets(constraints, plan));
  constraints = {};
  constraints.recompute = "none";
  CHECK(meets(constraints, plan));
  constraints.recompute = "[1]";
  CHECK_FALSE(meets(constraints, plan));
  constraints = {};
  constraints.samples = std::vector<std::int64_t>{2, 2};
  CHECK(meets(constraints, plan));
  constraints.samples = std::vector<std::int64_t>{3, 1};
  CHECK_FALSE(meets(constraints, plan));
}
