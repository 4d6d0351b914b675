// Laws of the whole search over random instances, through find_plan alone. Where a law compares two searches it may be
// off by the gap that the second one reports: no more is promised.
#include <algorithm>
#include <functional>
#include <random>
#include <set>

#include "plan/program.h"
#include "planner/planner.h"
#include "tests/planner/plan_space.h"
#include "tests/planner/space_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

constexpr int kRounds = 8;

/// Calls `body(instance, random, round)` for random instances of 2 to 4 blocks on 2 to 4 devices.
void for_each_instance(unsigned seed, const std::function<void(const SpaceInstance&, std::mt19937&)>& body) {
  for (int round = 0; round < kRounds; ++round) {
    std::mt19937 random(seed * 1000 + static_cast<unsigned>(round));
    const int blocks = 2 + static_cast<int>(random() % 3), devices = 2 + static_cast<int>(random() % 3);
    const auto instance = InstanceMaker(random).make(blocks, devices);
    INFO("seed " << seed << ", round " << round << ": " << blocks << " blocks, " << devices << " devices");
    body(*instance, random);
  }
}

double factor(std::mt19937& random) { return 1.0 + static_cast<double>(1 + random() % 300) / 100.0; }

/// `after` has more to choose from than `before`: a plan stays a plan, and none is slower but by the gap.
void check_no_worse(const SpaceInstance& before, const SpaceInstance& after) {
  const auto first = find_plan(before.request(plan::kPlannable));
  if (!first) return;
  const auto second = find_plan(after.request(plan::kPlannable));
  REQUIRE(second.has_value());
  INFO(first->summary << ", then " << second->summary);
  CHECK(second->estimate.step.value <= first->estimate.step.value * (1 + second->optimality_gap) * (1 + 1e-9));
  // What is sure of all plans is sure of one.
  CHECK(second->lower_bound_step.value <= first->estimate.step.value * (1 + 1e-9));
}

/// Problems other than that this version's worker does not run it.
std::vector<Error> problems_of(const plan::Plan& plan, const SpaceInstance& instance) {
  auto problems = plan::validate(plan, instance.graph, instance.resources);
  std::erase_if(problems, [](const Error& problem) { return problem.code == ErrorCode::Unimplemented; });
  return problems;
}

double simulated(const SpaceInstance& instance, const plan::Plan& plan) {
  const auto simulation = cost_model::simulate(*instance.cost, plan);
  REQUIRE(simulation.has_value());
  return simulation->estimate.step.value;
}

}  // namespace

TEST_CASE("more memory never makes the best plan slower", "[laws_test]") {
  for_each_instance(1, [](const SpaceInstance& instance, std::mt19937& random) {
    cluster::ResourceGraph more = instance.resources;
    cluster::DeviceClass& grown = more.device_classes[random() % more.device_classes.size()];
    grown.memory.value =
        Bytes(static_cast<std::int64_t>(static_cast<double>(grown.memory.value.value) * factor(random)));
    check_no_worse(instance, *with_resources(instance, std::move(more)));
  });
}

TEST_CASE("more bandwidth never makes the best plan slower", "[laws_test]") {
  for_each_instance(2, [](const SpaceInstance& instance, std::mt19937& random) {
    cluster::ResourceGraph more = instance.resources;
    const double times = factor(random);
    const auto widen = [&](cluster::LinkClass& link) {
      link.bandwidth.value = BytesPerSecond(link.bandwidth.value.value * times);
    };
    // Inside the nodes, between them, or both.
    const unsigned which = 1 + random() % 3;
    for (cluster::NodeClass& node : more.node_classes) {
      if ((which & 1U) != 0) widen(node.link);
    }
    for (cluster::NetworkTier& tier : more.tiers) {
      if ((which & 2U) != 0) widen(tier.link);
    }
    check_no_worse(instance, *with_resources(instance, std::move(more)));
  });
}

TEST_CASE("more speed never makes the best plan slower", "[laws_test]") {
  for_each_instance(3, [](const SpaceInstance& instance, std::mt19937& random) {
    const auto faster = with_resources(instance, instance.resources);
    const double times = factor(random);
    for (double& speed : faster->cost->speed[random() % faster->cost->speed.size()]) speed *= times;
    check_no_worse(instance, *faster);
  });
}

TEST_CASE("a device more, which may stay unused, never makes the best plan slower", "[laws_test]") {
  for_each_instance(4, [](const SpaceInstance& instance, std::mt19937& random) {
    cluster::ResourceGraph more = instance.resources;
    cluster::NodeClass& node = more.node_classes[random() % more.node_classes.size()];
    ++node.devices[random() % node.devices.size()].count;
    check_no_worse(instance, *with_resources(instance, std::move(more)));
  });
}

TEST_CASE("every plan found validates, fits, and takes what the simulator says", "[laws_test]") {
  for_each_instance(5, [](const SpaceInstance& instance, std::mt19937&) {
    const auto found = find_plan(instance.request(plan::kPlannable));
    if (!found) {
      CHECK(found.error().code == ErrorCode::ResourceExhausted);
      return;
    }
    const auto check = [&](const plan::Plan& plan, const plan::Estimate& estimate) {
      INFO(summarize(plan));
      CHECK(problems_of(plan, instance).empty());
      CHECK(estimate.step.value == Approx(simulated(instance, plan)).epsilon(1e-12));
      CHECK(estimate.step.value >= found->lower_bound_step.value * (1 - 1e-9));
      for (const plan::DeviceEstimate& device : estimate.devices) CHECK(device.parts.total() <= device.capacity);
    };
    check(found->plan, found->estimate);
    for (const RunnerUp& runner : found->runners_up) {
      check(runner.plan, runner.estimate);
      CHECK(runner.estimate.step >= found->estimate.step);
    }
    CHECK(found->optimality_gap ==
          Approx(found->estimate.step.value / found->lower_bound_step.value - 1).margin(1e-12));
  });
}

TEST_CASE("no bound of the search exceeds a simulated plan of what it was asked for", "[laws_test]") {
  for_each_instance(6, [](const SpaceInstance& instance, std::mt19937& random) {
    SpaceAxes axes = full_axes(4);
    axes.selective = axes.offload = false;  // no constraint says which block or stage
    for (int i = 0; i < 2; ++i) {
      const auto plan = PlanSpace(*instance.cost, instance.global, axes).random_plan(random);
      if (!plan) continue;
      // Pinned to what the plan is, so that the search cannot hide behind a better one.
      Request request = instance.request(plan::kPlannable);
      Constraints& pins = request.constraints;
      std::set<int> data, tensor, zero;
      std::string cuts, recompute;
      for (const plan::Stage& stage : plan->stages) {
        data.insert(static_cast<int>(stage.replicas.size()));
        tensor.insert(stage.replicas.front().tensor);
        zero.insert(stage.zero_stage);
        if (stage.first_block > 0) cuts += (cuts.empty() ? "" : ",") + std::to_string(stage.first_block);
        for (std::size_t b = 0; b < stage.recompute.size(); ++b) {
          if (stage.recompute[b] == plan::Recompute::Full)
            recompute += (recompute.empty() ? "" : ",") + std::to_string(stage.first_block + static_cast<int>(b));
        }
      }
      pins.data.assign(data.begin(), data.end());
      pins.tensor.assign(tensor.begin(), tensor.end());
      pins.zero.assign(zero.begin(), zero.end());
      pins.pipeline = {static_cast<int>(plan->stages.size())};
      pins.micro = {plan->batch.micro};
      pins.schedule = {plan->schedule};
      pins.cuts = "[" + cuts + "]";
      pins.recompute = "[" + recompute + "]";
      pins.offload = "none";
      const double step = simulated(instance, *plan);
      INFO(summarize(*plan) << ", recompute [" << recompute << "], simulated " << step);
      const auto pinned = find_plan(request);
      // A stage takes the split of samples that ends soonest; where only another one fits, nothing is found.
      if (!pinned) continue;
      INFO("pinned: " << pinned->summary);
      CHECK(pinned->lower_bound_step.value <= step * (1 + 1e-9));
      CHECK(pinned->estimate.step.value <= step * (1 + pinned->optimality_gap) * (1 + 1e-9));
    }
  });
}

TEST_CASE("renaming changes only names", "[laws_test]") {
  for_each_instance(7, [](const SpaceInstance& instance, std::mt19937&) {
    const auto found = find_plan(instance.request(plan::kPlannable));
    if (!found) return;
    SpaceInstance renamed;
    renamed.graph = instance.graph;
    for (model::Block& block : renamed.graph.blocks) block.name = "stack." + block.name;
    for (model::Parameter& parameter : renamed.graph.parameters) parameter.name = "module." + parameter.name;
    renamed.resources = instance.resources;
    for (cluster::DeviceClass& device : renamed.resources.device_classes) device.name = "z-" + device.name + "-z";
    for (cluster::NodeClass& node : renamed.resources.node_classes) node.name = "host of " + node.name;
    renamed.global = instance.global;
    renamed.cost = std::make_unique<TableCost>(renamed.graph, renamed.resources);
    copy_tables(*instance.cost, *renamed.cost);
    auto other = find_plan(renamed.request(plan::kPlannable));
    REQUIRE(other.has_value());
    other->plan.model_hash = found->plan.model_hash;
    other->plan.cluster_hash = found->plan.cluster_hash;
    CHECK(other->plan == found->plan);
    CHECK(other->lower_bound_step == found->lower_bound_step);
    CHECK(other->candidates_costed == found->candidates_costed);
    REQUIRE(other->runners_up.size() == found->runners_up.size());
    for (std::size_t i = 0; i < found->runners_up.size(); ++i)
      CHECK(other->runners_up[i].summary == found->runners_up[i].summary);
  });
}

TEST_CASE("classes in another order give as fast a plan", "[laws_test]") {
  for_each_instance(8, [](const SpaceInstance& instance, std::mt19937&) {
    const auto found = find_plan(instance.request(plan::kPlannable));
    cluster::ResourceGraph swapped = instance.resources;
    std::swap(swapped.device_classes[0], swapped.device_classes[1]);
    for (cluster::NodeClass& node : swapped.node_classes) {
      for (cluster::DeviceCount& entry : node.devices) entry.device_class = 1 - entry.device_class;
    }
    std::reverse(swapped.node_classes.begin(), swapped.node_classes.end());
    for (cluster::NodeGroup& group : swapped.nodes)
      group.node_class = static_cast<int>(swapped.node_classes.size()) - 1 - group.node_class;
    const auto turned = with_resources(instance, std::move(swapped));
    std::swap(turned->cost->speed[0], turned->cost->speed[1]);
    const auto other = find_plan(turned->request(plan::kPlannable));
    REQUIRE(other.has_value() == found.has_value());
    if (!found) return;
    INFO(found->summary << ", then " << other->summary);
    CHECK(other->estimate.step.value <= found->estimate.step.value * (1 + other->optimality_gap) * (1 + 1e-9));
    CHECK(found->estimate.step.value <= other->estimate.step.value * (1 + found->optimality_gap) * (1 + 1e-9));
  });
}
