// Whole searches: against exhaustive enumeration on tiny instances, the law of the bounds, determinism, constraints.
#include "planner/planner.h"

#include <algorithm>
#include <functional>
#include <random>

#include "plan/program.h"
#include "planner/search.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

struct Instance {
  model::ModelGraph graph;
  cluster::ResourceGraph resources;
  std::unique_ptr<FakeCost> cost;
  std::int64_t global = 4;
};

/// A random tiny instance: 2 or 3 layers, up to 4 devices of one or two classes on one or two nodes.
std::unique_ptr<Instance> random_instance(std::mt19937& random) {
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  auto instance = std::make_unique<Instance>();
  instance->graph = make_chain(pick(2, 3), 16, pick(0, 3) == 0);
  const bool two_classes = pick(0, 1) == 1;
  const std::int64_t nodes = pick(1, 2);
  const std::int64_t most = nodes == 2 ? (two_classes ? 1 : 2) : (two_classes ? 2 : 3);
  std::vector<cluster::DeviceClass> classes{make_device("a", std::int64_t{1} << 40, 1e9, 1e9)};
  std::vector<std::int64_t> counts{pick(1, static_cast<int>(most))};
  if (two_classes) {
    classes.push_back(make_device("b", std::int64_t{1} << 40, 1e9, 1e9));
    counts.push_back(1);
  }
  if (pick(0, 1) == 1) {
    for (auto& device_class : classes) device_class.kind = cluster::DeviceKind::Cuda;
  }
  const double slow = std::pow(10.0, pick(1, 4));
  instance->resources = make_cluster(classes, counts, nodes, make_link("inner", 1e-3, 1e5), make_link("outer", 1e-2, slow));
  instance->cost = std::make_unique<FakeCost>(instance->graph, instance->resources);
  for (double& forward : instance->cost->forward) forward = pick(1, 9) * 0.01;
  instance->cost->forward[0] = 0;
  if (two_classes) instance->cost->speed[1] = pick(1, 3) * 0.25;
  instance->cost->fixed = pick(0, 2) * 0.005;
  instance->cost->optimizer_per_parameter = pick(0, 1) * 1e-5;
  instance->global = pick(0, 1) == 0 ? 4 : 6;
  return instance;
}

/// Calls `visit` with every way of cutting the blocks, choosing devices in order for the stages and splitting samples.
class Exhaustive {
 public:
  Exhaustive(const Instance& instance, std::function<void(const plan::Plan&)> visit) : instance_(instance), visit_(std::move(visit)) {
    for (std::size_t c = 0; c < instance.resources.device_classes.size(); ++c) {
      for (std::int64_t i = 0; i < cluster::num_devices(instance.resources, static_cast<int>(c)); ++i) devices_.push_back({static_cast<int>(c), i});
    }
  }

  void run() {
    for (std::int64_t micro = 1; micro <= instance_.global; ++micro) {
      if (instance_.global % micro != 0) continue;
      micro_ = micro;
      std::vector<char> used(devices_.size(), 0);
      std::vector<StageSpec> stages;
      next_stage(0, used, stages);
    }
  }

 private:
  void next_stage(int first, std::vector<char>& used, std::vector<StageSpec>& stages) {
    const int blocks = instance_.graph.num_blocks();
    if (first == blocks) {
      for (const auto schedule : {plan::ScheduleKind::GPipe, plan::ScheduleKind::OneForwardOneBackward}) {
        if (stages.size() == 1 && schedule == plan::ScheduleKind::GPipe) continue;
        visit_(make_plan(instance_.graph, instance_.resources, stages, instance_.global / micro_, schedule, kBucketBytes));
      }
      return;
    }
    for (int end = first + 1; end <= blocks; ++end) {
      if (first == 0 && end == 1) continue;  // the prologue is empty
      for (std::uint32_t mask = 1; mask < (1u << devices_.size()); ++mask) {
        std::vector<plan::DeviceId> chosen;
        bool free = true;
        for (std::size_t d = 0; d < devices_.size(); ++d) {
          if ((mask >> d & 1u) == 0) continue;
          free = free && used[d] == 0;
          chosen.push_back(devices_[d]);
        }
        if (!free || static_cast<std::int64_t>(chosen.size()) > micro_) continue;
        for (std::size_t d = 0; d < devices_.size(); ++d) used[d] = static_cast<char>(used[d] + (mask >> d & 1u));
        std::vector<std::int64_t> samples;
        split(first, end, chosen, samples, micro_, used, stages);
        for (std::size_t d = 0; d < devices_.size(); ++d) used[d] = static_cast<char>(used[d] - (mask >> d & 1u));
      }
    }
  }

  void split(int first, int end, const std::vector<plan::DeviceId>& chosen, std::vector<std::int64_t>& samples, std::int64_t left, std::vector<char>& used, std::vector<StageSpec>& stages) {
    if (samples.size() + 1 == chosen.size()) {
      samples.push_back(left);
      stages.push_back({first, end, chosen, samples, plan::Recompute::None});
      next_stage(end, used, stages);
      stages.pop_back();
      samples.pop_back();
      return;
    }
    const auto later = static_cast<std::int64_t>(chosen.size() - samples.size()) - 1;
    for (std::int64_t mine = 1; mine + later <= left; ++mine) {
      samples.push_back(mine);
      split(first, end, chosen, samples, left - mine, used, stages);
      samples.pop_back();
    }
  }

  const Instance& instance_;
  std::function<void(const plan::Plan&)> visit_;
  std::vector<plan::DeviceId> devices_;
  std::int64_t micro_ = 0;
};

Request request_of(const Instance& instance) {
  Request request;
  request.cost = instance.cost.get();
  request.global_batch = instance.global;
  return request;
}

double simulated_step(const cost_model::CostModel& cost, const plan::Plan& plan) {
  const auto simulation = cost_model::simulate(cost, plan);
  REQUIRE(simulation.has_value());
  return simulation->estimate.step.value;
}

}  // namespace

TEST_CASE("the plan found is the exhaustive optimum of tiny instances, and the lower bound holds", "[find_plan_test]") {
  std::mt19937 random(7);
  int exact = 0, all = 0;
  for (int round = 0; round < 40; ++round) {
    const auto instance = random_instance(random);
    double best = 1e300;
    plan::Plan best_plan;
    Exhaustive(*instance, [&](const plan::Plan& plan) {
      const double step = simulated_step(*instance->cost, plan);
      if (step < best) best_plan = plan;
      best = std::min(best, step);
    }).run();
    const auto found = find_plan(request_of(*instance));
    REQUIRE(found.has_value());
    INFO("round " << round << ": " << found->summary << " against " << summarize(best_plan));
    CHECK(plan::validate(found->plan, instance->graph, instance->resources).empty());
    CHECK(found->estimate.step.value == Approx(simulated_step(*instance->cost, found->plan)));
    CHECK(found->lower_bound_step.value <= best * (1 + 1e-9));
    CHECK(found->estimate.step.value <= best * (1 + found->optimality_gap) * (1 + 1e-9));
    CHECK(found->estimate.step.value <= best * 1.02);
    exact += found->estimate.step.value <= best * (1 + 1e-9) ? 1 : 0;
    ++all;
  }
  INFO(exact << " of " << all << " exactly");
  CHECK(exact >= all - 4);
}
