// The next plan: closed forms of C76 and C77, and laws over random instances and changes.
#include "planner/replan.h"

#include <cmath>
#include <memory>

#include "plan/program.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// A found plan of a random instance, and the instance after a random change.
struct Episode {
  std::unique_ptr<Instance> instance;
  plan::Plan running;
  cluster::ChangedCluster changed;
  std::unique_ptr<FakeCost> cost;

  [[nodiscard]] Request request(double horizon) const {
    Request request = instance->request();
    request.cost = cost.get();
    request.running = RunningPlan{running, changed.devices, Seconds(horizon)};
    return request;
  }
};

std::unique_ptr<Episode> make_episode(std::unique_ptr<Instance> instance, const cluster::ClusterChange& change) {
  auto episode = std::make_unique<Episode>();
  episode->instance = std::move(instance);
  const auto found = find_plan(episode->instance->request());
  REQUIRE(found.has_value());
  episode->running = found->plan;
  auto changed = cluster::apply_change(episode->instance->resources, change);
  if (!changed) return nullptr;
  episode->changed = std::move(*changed);
  episode->cost = std::make_unique<FakeCost>(episode->instance->graph, episode->changed.graph);
  FakeCost& cost = *episode->cost;
  const FakeCost& before = *episode->instance->cost;
  cost.forward = before.forward;
  cost.fixed = before.fixed;
  cost.optimizer_per_parameter = before.optimizer_per_parameter;
  std::copy(before.speed.begin(), before.speed.end(), cost.speed.begin());
  for (const auto& slowed : episode->changed.slowed)
    cost.speed[static_cast<std::size_t>(slowed.device_class)] =
        cost.speed[static_cast<std::size_t>(slowed.of)] * slowed.rate_fraction;
  return episode;
}

cluster::ClusterChange random_change(std::mt19937& random, const cluster::ResourceGraph& graph) {
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  cluster::ClusterChange change;
  const int c = pick(0, static_cast<int>(graph.device_classes.size()) - 1);
  const int last = static_cast<int>(cluster::num_devices(graph, c)) - 1;
  const std::string& name = graph.device_classes[static_cast<std::size_t>(c)].name;
  const int kind = pick(0, 2);
  const int index = pick(0, last);
  if (kind == 0) change.lost = {{name, index, index}};
  if (kind == 1) change.slower = {{name, index, index, 0.25 * pick(1, 3)}};
  if (kind == 2) change.added = {{"node", 1}};
  return change;
}

std::unique_ptr<Episode> random_episode(std::mt19937& random) {
  while (true) {
    auto instance = random_instance(random);
    const auto change = random_change(random, instance->resources);
    if (auto episode = make_episode(std::move(instance), change)) return episode;
  }
}

constexpr double kHorizons[] = {1e-6, 0.01, 0.3, 1.5, 4, 6, 8, 12, 30, 100, 1e3, 1e5, 1e9};

}  // namespace

TEST_CASE("C76: the step over a horizon", "[replan_test]") {
  CHECK(effective_step(Seconds(2), Seconds(0), Seconds(10))->value == 2);
  CHECK(effective_step(Seconds(2), Seconds(5), Seconds(10))->value == 4);  // half the time, half the steps
  CHECK_FALSE(effective_step(Seconds(2), Seconds(10), Seconds(10)).has_value());
}

TEST_CASE("C77: at the horizon from which a move pays both do the same work", "[replan_test]") {
  const auto after = pays_after(Seconds(2), Seconds(30), Seconds(3));
  REQUIRE(after.has_value());
  CHECK(after->value == Approx(90));  // 60 s of 2 s = 30 steps = 90 s of 3 s
  CHECK_FALSE(pays_after(Seconds(3), Seconds(30), Seconds(3)).has_value());
  CHECK(pays_after(Seconds(2), Seconds(0), Seconds(3))->value == 0);
}

TEST_CASE("a longer horizon never gives a plan of a longer step", "[replan_test]") {
  std::mt19937 random(21);
  int changes = 0;
  for (int round = 0; round < 25; ++round) {
    const auto episode = random_episode(random);
    double before = 1e300;
    for (const double horizon : kHorizons) {
      const auto result = find_plan(episode->request(horizon));
      if (!result) break;
      CAPTURE(round, horizon);
      CHECK(result->estimate.step.value <= before);
      if (before < 1e300 && result->estimate.step.value < before) ++changes;
      before = result->estimate.step.value;
      REQUIRE(result->move.has_value());
      // Nothing that was shown does more work.
      for (const RunnerUp& runner : result->runners_up) {
        const auto effective = effective_step(runner.estimate.step, *runner.move, Seconds(horizon));
        if (effective && result->move->effective_step)
          CHECK(result->move->effective_step->value <= effective->value * (1 + 1e-12));
      }
    }
  }
  CHECK(changes > 5);
}

TEST_CASE("a short horizon keeps the running plan, a long one finds what a fresh search finds", "[replan_test]") {
  std::mt19937 random(22);
  int kept = 0;
  for (int round = 0; round < 25; ++round) {
    const auto episode = random_episode(random);
    bool survives = true;
    for (const auto& row : episode->changed.devices) {
      for (const auto& device : row) survives = survives && device.has_value();
    }
    const auto soon = find_plan(episode->request(1e-6));
    auto fresh_request = episode->request(1);
    fresh_request.running.reset();
    const auto fresh = find_plan(fresh_request);
    if (!fresh) continue;
    REQUIRE(soon.has_value());
    CAPTURE(round);
    if (survives) {
      ++kept;
      CHECK(soon->move->keeps_running_plan);
      CHECK(is_same_plan(episode->running, episode->changed.devices, soon->plan));
      CHECK(soon->move->estimate == MoveEstimate{});
      if (soon->move->pays_after) {
        // Just beyond it the running plan is left.
        const auto later = find_plan(episode->request(soon->move->pays_after->value * 1.001));
        REQUIRE(later.has_value());
        CHECK_FALSE(later->move->keeps_running_plan);
        const auto earlier = find_plan(episode->request(soon->move->pays_after->value * 0.999));
        REQUIRE(earlier.has_value());
        CHECK(earlier->move->keeps_running_plan);
      }
    }
    const auto late = find_plan(episode->request(1e12));
    REQUIRE(late.has_value());
    CHECK(late->estimate.step.value <= fresh->estimate.step.value * (1 + 1e-9));
    CHECK(late->lower_bound_step <= late->estimate.step);
  }
  CHECK(kept > 5);
}

TEST_CASE("the next plan validates on the changed cluster, for any thread count", "[replan_test]") {
  std::mt19937 random(23);
  for (int round = 0; round < 12; ++round) {
    const auto episode = random_episode(random);
    for (const double horizon : {1e-6, 7.0, 1e6}) {
      auto request = episode->request(horizon);
      const auto result = find_plan(request);
      if (!result) continue;
      CAPTURE(round, horizon);
      CHECK(plan::validate(result->plan, episode->instance->graph, episode->changed.graph).empty());
      request.threads = 3;
      const auto again = find_plan(request);
      REQUIRE(again.has_value());
      CHECK(to_text(to_json(*again)) == to_text(to_json(*result)));
    }
  }
}

TEST_CASE("renaming changes nothing but names", "[replan_test]") {
  std::mt19937 random(24);
  for (int round = 0; round < 8; ++round) {
    const auto episode = random_episode(random);
    const auto result = find_plan(episode->request(10));
    if (!result) continue;
    for (auto& device_class : episode->changed.graph.device_classes) device_class.name = "z" + device_class.name;
    for (auto& node_class : episode->changed.graph.node_classes) node_class.name = "y" + node_class.name;
    const auto renamed = find_plan(episode->request(10));
    REQUIRE(renamed.has_value());
    plan::Plan plan = renamed->plan;
    CHECK(plan.cluster_hash != result->plan.cluster_hash);
    plan.cluster_hash = result->plan.cluster_hash;
    CHECK(plan == result->plan);
    CHECK(renamed->move->estimate == result->move->estimate);
  }
}

TEST_CASE("a running plan that cannot be used is refused with every reason", "[replan_test]") {
  std::mt19937 random(25);
  const auto episode = random_episode(random);
  auto request = episode->request(std::nan(""));
  request.running->plan.model_hash = "other";
  request.running->plan.stages.back().end_block -= 1;
  request.running->plan.stages.front().replicas.front().devices.front() = {0, 99};
  const auto result = find_plan(request);
  REQUIRE_FALSE(result.has_value());
  REQUIRE(result.error().details.size() == 4);
  CHECK(result.error().details[0].path == "horizon_seconds");
  CHECK(result.error().details[1].path == "model_hash");
  CHECK(result.error().details[2].path == "stages");
  CHECK(result.error().details[3].path == "stages[0]");
}
