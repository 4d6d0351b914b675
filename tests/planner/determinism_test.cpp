// Same input, same bytes: for any number of threads, again and again, and for any order of what has no order.
#include <algorithm>
#include <functional>
#include <random>

#include "planner/planner.h"
#include "tests/planner/space_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

std::string bytes_of(const Request& request) {
  const auto found = find_plan(request);
  return found ? to_text(to_json(*found)) : to_text(found.error());
}

/// Without the two hashes, which are of the whole input and may see an order that nothing else does.
std::string bytes_without_hashes(const Request& request) {
  auto found = find_plan(request);
  if (!found) return to_text(found.error());
  const auto blank = [](plan::Plan& plan) { plan.model_hash = plan.cluster_hash = ""; };
  blank(found->plan);
  for (RunnerUp& runner : found->runners_up) blank(runner.plan);
  return to_text(to_json(*found));
}

void for_each_instance(unsigned seed, int rounds, const std::function<void(SpaceInstance&, std::mt19937&)>& body) {
  for (int round = 0; round < rounds; ++round) {
    std::mt19937 random(seed * 1000 + static_cast<unsigned>(round));
    const auto instance = InstanceMaker(random).make(3 + round % 2, 3 + round % 2);
    INFO("seed " << seed << ", round " << round);
    body(*instance, random);
  }
}

}  // namespace

TEST_CASE("one, two, four and seven threads give the same bytes", "[determinism_test]") {
  for_each_instance(1, 4, [](SpaceInstance& instance, std::mt19937&) {
    Request request = instance.request(plan::kPlannable);
    const std::string first = bytes_of(request);
    for (const int threads : {2, 4, 7, 1}) {
      request.threads = threads;
      CHECK(bytes_of(request) == first);
    }
  });
}

TEST_CASE("threads change nothing on many devices", "[determinism_test]") {
  std::mt19937 random(3);
  const auto small = InstanceMaker(random).make(6, 4);
  cluster::ResourceGraph many = small->resources;
  many.nodes.front().count = 24;
  many.tiers = {{make_link("rack", 1e-5, 1e9), 8}, {make_link("pod", 5e-5, 3e8), 0}};
  const auto instance = with_resources(*small, std::move(many));
  instance->global = 96;
  Request request = instance->request(plan::kPlannable);
  const std::string first = bytes_of(request);
  for (const int threads : {2, 4, 7}) {
    request.threads = threads;
    CHECK(bytes_of(request) == first);
  }
}

TEST_CASE("a group of equal nodes may be written as several", "[determinism_test]") {
  for_each_instance(2, 4, [](SpaceInstance& instance, std::mt19937&) {
    cluster::ResourceGraph joined = instance.resources, apart = instance.resources;
    joined.nodes = {{0, 2}};
    apart.nodes = {{0, 1}, {0, 1}};
    joined.tiers = apart.tiers = {{make_link("rack", 1e-4, 1e9), 0}};
    const auto a = with_resources(instance, std::move(joined)), b = with_resources(instance, std::move(apart));
    CHECK(bytes_without_hashes(a->request(plan::kPlannable)) == bytes_without_hashes(b->request(plan::kPlannable)));
  });
}

TEST_CASE("entries of a node class and measured links have no order", "[determinism_test]") {
  for_each_instance(3, 4, [](SpaceInstance& instance, std::mt19937&) {
    cluster::ResourceGraph graph = instance.resources;
    graph.nodes = {{0, 2}};
    graph.tiers = {{make_link("rack", 1e-4, 1e9), 0}};
    graph.link_overrides = {{0, 1, make_link("slow", 1e-3, 1e8)}, {1, 0, make_link("slow", 1e-3, 1e8)}};
    cluster::ResourceGraph other = graph;
    std::reverse(other.link_overrides.begin(), other.link_overrides.end());
    for (cluster::NodeClass& node : other.node_classes) std::reverse(node.devices.begin(), node.devices.end());
    const auto a = with_resources(instance, std::move(graph)), b = with_resources(instance, std::move(other));
    CHECK(bytes_without_hashes(a->request(plan::kPlannable)) == bytes_without_hashes(b->request(plan::kPlannable)));
  });
}

TEST_CASE("parameters of one tensor's worth have no order", "[determinism_test]") {
  for_each_instance(4, 4, [](SpaceInstance& instance, std::mt19937&) {
    const std::string first = bytes_without_hashes(instance.request(plan::kPlannable));
    SpaceInstance turned;
    turned.graph = instance.graph;
    std::reverse(turned.graph.parameters.begin(), turned.graph.parameters.end());
    turned.resources = instance.resources;
    turned.global = instance.global;
    turned.cost = std::make_unique<TableCost>(turned.graph, turned.resources);
    copy_tables(*instance.cost, *turned.cost);
    CHECK(bytes_without_hashes(turned.request(plan::kPlannable)) == first);
  });
}

TEST_CASE("alternatives of a constraint have no order", "[determinism_test]") {
  for_each_instance(5, 4, [](SpaceInstance& instance, std::mt19937& random) {
    Request request = instance.request(plan::kPlannable);
    Constraints& pins = request.constraints;
    pins.data = {1, 2, 3};
    pins.tensor = {1, 2};
    pins.pipeline = {1, 2, 3};
    pins.zero = {0, 1, 3};
    pins.micro = {1, 2, instance.global};
    pins.schedule = {plan::ScheduleKind::GPipe, plan::ScheduleKind::OneForwardOneBackward};
    const std::string first = bytes_of(request);
    for (int turn = 0; turn < 3; ++turn) {
      std::shuffle(pins.data.begin(), pins.data.end(), random);
      std::shuffle(pins.tensor.begin(), pins.tensor.end(), random);
      std::shuffle(pins.pipeline.begin(), pins.pipeline.end(), random);
      std::shuffle(pins.zero.begin(), pins.zero.end(), random);
      std::shuffle(pins.micro.begin(), pins.micro.end(), random);
      std::shuffle(pins.schedule.begin(), pins.schedule.end(), random);
      CHECK(bytes_of(request) == first);
    }
  });
}

TEST_CASE("points of a profile have no order", "[determinism_test]") {
  for_each_instance(6, 4, [](SpaceInstance& instance, std::mt19937& random) {
    cluster::Profile profile;
    for (std::size_t b = 0; b < instance.graph.blocks.size(); ++b) {
      for (std::size_t c = 0; c < instance.resources.device_classes.size(); ++c) {
        for (const std::int64_t samples : {1, 2, 4}) {
          const auto time = instance.cost->estimate_block({static_cast<int>(b), static_cast<int>(c), samples});
          profile.blocks.push_back({instance.graph.blocks[b].signature, instance.resources.device_classes[c].name,
                                    samples, time.forward, time.backward, time.saved, time.transient});
        }
      }
    }
    for (const cluster::DeviceClass& device : instance.resources.device_classes)
      profile.devices.push_back(
          {device.name, Seconds(1e-9), Seconds(1e-10), Seconds(1e-3), Seconds(1e-5), Bytes(1000)});
    const auto bytes = [&] {
      const auto cost = cost_model::make_cost_model(instance.graph, instance.resources, &profile);
      Request request = instance.request(plan::kPlannable);
      request.cost = cost.get();
      return bytes_of(request);
    };
    const std::string first = bytes();
    std::shuffle(profile.blocks.begin(), profile.blocks.end(), random);
    std::reverse(profile.devices.begin(), profile.devices.end());
    CHECK(bytes() == first);
  });
}
