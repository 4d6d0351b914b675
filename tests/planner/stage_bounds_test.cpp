// What the stages of a combination can hold and do, against closed forms and against every plan that a search finds.
#include "planner/stage_bounds.h"

#include "planner/combination_bounds.h"
#include "planner/refine.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Blocks of one signature take equally long.
class EvenCost final : public FakeCost {
 public:
  using FakeCost::FakeCost;
  bool costs_by_signature() const override { return true; }
};

}  // namespace

TEST_CASE("C38: ten blocks on three stages: one has four, and the last waits for those before it",
          "[stage_bounds_test]") {
  const model::ModelGraph graph = make_chain(11, 8);
  cluster::DeviceClass device = make_device("d", std::int64_t{1} << 40);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 18, make_link("l", 1e-6, 1e9), make_link("o", 1e-6, 1e9));
  EvenCost cost(graph, resources);
  cost.forward.assign(13, 1.0);
  // The first layer passes no gradient on: ten are alike.
  cost.forward[0] = cost.forward[1] = cost.forward[12] = 0;
  Request request;
  request.cost = &cost;
  request.global_batch = 96;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  space->chunked_schedules.clear();
  const auto of_replicas = [&](std::int32_t replicas) {
    Counts units;
    units.of[0] = replicas;
    Combination one;
    one.micro = 24;
    one.count = 4;
    one.max_stages = 13;
    one.compositions =
        std::make_shared<const std::vector<Composition>>(1, make_composition(space->pools, units, Axes{}));
    return one;
  };
  const auto seconds = [&](std::int32_t replicas, double most) {
    StageBounds bounds(*space);
    const Combination one = of_replicas(replicas);
    return static_cast<double>(bounds.bounds({&one}, static_cast<Cost>(most * 1e9), request).front()) * 1e-9;
  };
  // 24 replicas: three stages, a sample each; a block takes 4 x 3 s of the step. Updates and sums are small.
  CHECK(seconds(24, 200) == Approx(4 * 12).epsilon(0.01));
  // 12 replicas of two samples: six stages, 24 s a block. Four of them have two blocks; the fourth waits for six
  // forwards of 2 s.
  CHECK(seconds(12, 200) == Approx(2 * 24 + 6 * 2).epsilon(0.01));
  // Not told beyond what is asked.
  CHECK(seconds(24, 40) == Approx(40).epsilon(0.01));
}

TEST_CASE("C38: no plan that is found steps faster than its combination's bound", "[stage_bounds_test]") {
  std::mt19937 random(11);
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  int plans = 0, tight = 0;
  for (int round = 0; round < 8; ++round) {
    const int layers = pick(5, 8);
    const model::ModelGraph graph = make_chain(layers, 256);
    // A layer is 256 KiB of parameters: between one layer and all of them fit, with what training adds.
    std::vector<cluster::DeviceClass> classes{make_device("a", (std::int64_t{1} << 20) * pick(3, 20)),
                                              make_device("b", (std::int64_t{1} << 20) * pick(3, 20))};
    classes[1].peak_float32.value = FlopPerSecond(classes[1].peak_float32.value.value / pick(1, 4));
    const auto resources = make_cluster(classes, {2, 2}, 4, make_link("l", 1e-6, 1e9), make_link("o", 1e-5, 1e8));
    const auto cost = cost_model::make_cost_model(graph, resources, nullptr);
    Request request;
    request.cost = cost.get();
    request.global_batch = 16;
    request.capabilities = plan::kPlannable;
    auto space = make_search_space(request);
    REQUIRE(space.has_value());
    space->large = true;
    space->chunked_schedules = {plan::ScheduleKind::ZeroBubbleV, plan::ScheduleKind::Interleaved};
    const SpanCosts spans(*cost, request.precision, RecomputeRule::Free, {}, true);
    space->spans = &spans;
    StageBounds bounds(*space);
    SearchLimits limits;
    limits.max_results = 2;
    limits.max_labels_per_layer = 16;
    int looked = 0;
    for (const Combination& one : make_combinations(*space)) {
      if (++looked % 3 != 0) continue;
      const auto found = search_combination(*space, one, kNoCost, limits);
      if (found.candidates.empty()) continue;
      const Cost bound = bounds.bounds({&one}, kNoCost / 4, request).front();
      CHECK(bound >= one.chunked_bound);
      std::vector<Candidate> candidates = found.candidates;
      for (const plan::ScheduleKind kind : space->chunked_schedules) {
        if (found.candidates.front().stages.size() < 2 || one.spread) continue;
        for (const int chunks : {2, kMaxChunks}) {
          if (chunks > 2 && kind == plan::ScheduleKind::ZeroBubbleV) continue;
          const auto folded = with_chunks(found.candidates.front(), kind, chunks);
          auto fitting = folded ? refit_chunks(*space, *folded) : std::nullopt;
          if (fitting) candidates.push_back(std::move(*fitting));
        }
      }
      for (const Candidate& candidate : candidates) {
        const plan::Plan plan = place_candidate(*space, candidate);
        if (plan.stages.empty()) continue;
        const auto simulation = cost_model::simulate(*cost, plan);
        REQUIRE(simulation.has_value());
        const auto& devices = simulation->estimate.devices;
        if (std::any_of(devices.begin(), devices.end(),
                        [](const plan::DeviceEstimate& one) { return one.parts.total() > one.capacity; }))
          continue;
        const double step = simulation->estimate.step.value;
        CHECK(static_cast<double>(bound) * 1e-9 <= step * (1 + 1e-9));
        ++plans;
        tight += static_cast<double>(bound) * 1e-9 > 0.75 * step ? 1 : 0;
      }
    }
  }
  CHECK(plans > 400);
  CHECK(tight > 20);
}
