#pragma once
// Random tiny planning instances for the property tests.
#include <cmath>
#include <memory>
#include <random>

#include "planner/planner.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

namespace coxswain::test_support {

struct Instance {
  model::ModelGraph graph;
  cluster::ResourceGraph resources;
  std::unique_ptr<FakeCost> cost;
  std::int64_t global = 4;

  [[nodiscard]] planner::Request request() const {
    planner::Request request;
    request.cost = cost.get();
    request.global_batch = global;
    return request;
  }
};

/// 2 or 3 layers, up to 4 devices of one or two classes on one or two nodes, links from slow to fast.
inline std::unique_ptr<Instance> random_instance(std::mt19937& random) {
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  auto instance = std::make_unique<Instance>();
  instance->graph = make_chain(pick(2, 3), 16, pick(0, 3) == 0);
  const bool two_classes = pick(0, 1) == 1;
  const std::int64_t nodes = pick(1, 2);
  const int most = nodes == 2 ? (two_classes ? 1 : 2) : (two_classes ? 2 : 3);
  std::vector<cluster::DeviceClass> classes{make_device("a", std::int64_t{1} << 40)};
  std::vector<std::int64_t> counts{pick(1, most)};
  if (two_classes) {
    classes.push_back(make_device("b", std::int64_t{1} << 40));
    counts.push_back(1);
  }
  if (pick(0, 1) == 1) {
    for (auto& device_class : classes) device_class.kind = cluster::DeviceKind::Cuda;
  }
  const double slow = std::pow(10.0, pick(1, 4));
  instance->resources =
      make_cluster(classes, counts, nodes, make_link("inner", 1e-3, 1e5), make_link("outer", 1e-2, slow));
  instance->cost = std::make_unique<FakeCost>(instance->graph, instance->resources);
  for (double& forward : instance->cost->forward) forward = pick(1, 9) * 0.01;
  instance->cost->forward[0] = 0;
  if (two_classes) instance->cost->speed[1] = pick(1, 3) * 0.25;
  instance->cost->fixed = pick(0, 2) * 0.005;
  instance->cost->optimizer_per_parameter = pick(0, 1) * 1e-5;
  instance->global = pick(0, 1) == 0 ? 4 : 6;
  return instance;
}

inline double simulated_step(const cost_model::CostModel& cost, const plan::Plan& plan) {
  const auto simulation = cost_model::simulate(cost, plan);
  return simulation ? simulation->estimate.step.value : -1;
}

}  // namespace coxswain::test_support
