#pragma once
// Random tiny clusters, running plans, losses and next plans for the tests of moving.
#include <algorithm>
#include <random>

#include "cluster/change.h"
#include "planner/move.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

namespace coxswain::test_support {

/// 144 elements a parameter: every degree of the random plans divides it. One parameter is a vector.
inline model::ModelGraph make_moving_graph(bool tied) {
  model::ModelGraph graph = make_chain(4, 12, tied);
  graph.parameters[1].dims = {144};
  return graph;
}

/// Five nodes of three devices in racks of two, then everything; a node takes two flows from another rack.
inline cluster::ResourceGraph make_moving_cluster() {
  cluster::ResourceGraph graph =
      make_cluster({make_device("a", 1 << 30)}, {3}, 5, make_link("inner", 1e-6, 1000), make_link("rack", 1e-5, 100));
  graph.tiers[0].nodes_per_domain = 2;
  graph.tiers.push_back({make_link("all", 1e-4, 10, 2), 0});
  return graph;
}

/// Stages of 1 to 3 replicas on meshes of 1 to 4 `devices` in their order, each stage with a ZeRO stage of its own.
inline plan::Plan random_sharded_plan(std::mt19937& random, int num_blocks, std::vector<plan::DeviceId> devices) {
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  plan::Plan plan;
  plan.batch = {6, 6, 1};
  std::shuffle(devices.begin(), devices.end(), random);
  const int num_stages = pick(1, 3);
  int first = 0;
  for (int s = 0; s < num_stages; ++s) {
    plan::Stage stage;
    stage.first_block = first;
    const int left = num_stages - s - 1;
    stage.end_block = left == 0 ? num_blocks : pick(first + 1, num_blocks - left);
    first = stage.end_block;
    stage.zero_stage = pick(0, 3);
    stage.recompute.assign(static_cast<std::size_t>(stage.end_block - stage.first_block), plan::Recompute::None);
    const int tensor = pick(1, 2), context = pick(0, 3) == 0 ? 2 : 1, replicas = pick(1, 3);
    for (int r = 0; r < replicas; ++r) {
      plan::Replica replica;
      replica.tensor = tensor;
      replica.context = context;
      replica.samples = 6 / replicas;
      // A stage has at least one replica.
      if (static_cast<int>(devices.size()) < tensor * context + 4 * left && r > 0) break;
      for (int p = 0; p < tensor * context; ++p) {
        replica.devices.push_back(devices.back());
        devices.pop_back();
      }
      stage.replicas.push_back(std::move(replica));
    }
    plan.stages.push_back(std::move(stage));
  }
  return plan;
}

inline std::vector<plan::DeviceId> all_devices(const cluster::ResourceGraph& graph) {
  std::vector<plan::DeviceId> devices;
  for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
    for (std::int64_t i = 0; i < cluster::num_devices(graph, static_cast<int>(c)); ++i)
      devices.push_back({static_cast<int>(c), i});
  }
  return devices;
}

}  // namespace coxswain::test_support
