// Devices and links that are other than predicted, on steps whose times are written by hand.
#include "launcher/control/adaptation.h"

#include <algorithm>

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

constexpr double kBlockWork = 0.010, kMessage = 0.020, kLatency = 0.004;  // seconds, as predicted

/// What one action takes against its prediction: blocks' work and the part of messages that bandwidth takes.
struct Pace {
  double work = 1, message = 1;
};

class HandMade {
 public:
  HandMade(std::vector<std::vector<std::int64_t>> samples, std::vector<int> cuts, std::vector<RankBinding> ranks)
      : graph_(make_chain_graph({.tied = false})) {
    run.basis.plan =
        make_plan(graph_, make_cpu_cluster({8}), {.cuts = std::move(cuts), .samples = std::move(samples), .count = 2});
    run.basis.groups = plan::make_groups(run.basis.plan, graph_);
    run.basis.nodes.assign(ranks.size(), "node");
    run.ranks = std::move(ranks);
    for (std::size_t role = 0; role < run.basis.plan.roles.size(); ++role) {
      for (std::size_t i = 0; i < run.basis.plan.roles[role].actions.size(); ++i) {
        const double seconds = predicted(run.basis.plan.roles[role].actions[i]);
        run.basis.predicted.actions.push_back({static_cast<int>(role), static_cast<int>(i), 0, seconds, 0});
        const double latency = seconds == kMessage ? kLatency : seconds;
        run.latencies.actions.push_back({static_cast<int>(role), static_cast<int>(i), 0, latency, 0});
      }
    }
  }

  /// A step in which all actions begin at once.
  void add_step(const std::vector<Pace>& paces) {
    cost_model::TracedStep step;
    step.step = static_cast<std::int64_t>(run.steps.size()) + 4;
    for (std::size_t rank = 0; rank < paces.size(); ++rank) {
      cost_model::MeasuredStep measured{100, 1, {}, {}};
      for (const plan::Action& action : role_of(static_cast<int>(rank)).actions) {
        const double seconds = predicted(action);
        measured.start.push_back(0);
        measured.end.push_back(seconds == kMessage ? kLatency + (kMessage - kLatency) * paces[rank].message
                                                   : seconds * paces[rank].work);
      }
      step.ranks.push_back(std::move(measured));
    }
    run.steps.push_back(std::move(step));
  }

  [[nodiscard]] const plan::Role& role_of(int rank) const {
    const plan::RankPlace place = plan::place_of(run.basis.plan, rank);
    for (const plan::Role& role : run.basis.plan.roles) {
      if (role.stage == place.stage &&
          std::find(role.replicas.begin(), role.replicas.end(), place.replica) != role.replicas.end())
        return role;
    }
    return run.basis.plan.roles.front();
  }

  LookedRun run;

 private:
  static double predicted(const plan::Action& action) {
    if (plan::is_edge(action.kind) || action.kind == plan::ActionKind::ReduceGradient) return kMessage;
    return plan::is_compute(action.kind) ? kBlockWork : 1e-4;
  }
  model::ModelGraph graph_;
};

/// A pipeline of two stages, on two nodes.
HandMade pipeline() { return HandMade({{4}, {4}}, {3}, {{0, 0, "cpu"}, {1, 0, "cpu"}}); }

}  // namespace

TEST_CASE("where all is within half of what was predicted nothing is off", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1.4, 1.8}, {0.75, 1.8}});
  made.add_step({{1.4, 1.8}, {0.75, 1.8}});
  const Differences found = find_differences(made.run, {}, {});
  CHECK(found.findings.empty());
  CHECK(found.corrections.empty());
}

TEST_CASE("a device that takes ten times as long is named, and all are taken as measured", "[adaptation]") {
  HandMade made = pipeline();
  for (int step = 0; step < 3; ++step) made.add_step({{1.25, 1}, {10, 1}});
  const Differences found = find_differences(made.run, {}, {});
  REQUIRE(found.findings.size() == 1);
  const Finding& finding = found.findings[0];
  CHECK_FALSE(finding.is_link);
  CHECK(finding.node == 1);
  CHECK(finding.local_device == 0);
  CHECK(finding.ranks == std::vector<int>{1});
  CHECK(finding.rate_ratio == Approx(0.1));
  // Two micro-batches, forward and backward.
  CHECK(finding.predicted_seconds == Approx(0.040));
  CHECK(finding.measured_seconds == Approx(0.400));
  REQUIRE(found.corrections.devices.size() == 2);
  CHECK(found.corrections.rate_ratio(0, 0) == Approx(0.8));
  CHECK(found.corrections.rate_ratio(1, 0) == Approx(0.1));
  CHECK(found.corrections.links.empty());
  const JsonObject event = to_json(finding);
  CHECK(event.at("what") == Json("device"));
  CHECK(event.at("device_class") == Json("cpu"));
  CHECK(event.at("rate_ratio").number() == Approx(0.1));
}

TEST_CASE("a device that is faster than said is off too", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 1}, {0.1, 1}});
  const Differences found = find_differences(made.run, {}, {});
  REQUIRE(found.findings.size() == 1);
  CHECK(found.findings[0].rate_ratio == Approx(10));
}

TEST_CASE("a busy machine is off only where it is off twofold, or one device stands out", "[adaptation]") {
  HandMade made = pipeline();
  SECTION("alike by less than two") {
    made.add_step({{1.8, 1}, {1.7, 1}});
    CHECK(find_differences(made.run, {}, {}).findings.empty());
  }
  SECTION("alike by more") {
    made.add_step({{2.5, 1}, {2.5, 1}});
    CHECK(find_differences(made.run, {}, {}).findings.size() == 2);
  }
  SECTION("one stands out by more than a half") {
    made.add_step({{1.0, 1}, {1.7, 1}});
    const Differences found = find_differences(made.run, {}, {});
    REQUIRE(found.findings.size() == 1);
    CHECK(found.findings[0].node == 1);
  }
}

TEST_CASE("one step that was disturbed says nothing of a device", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 1}, {1, 1}});
  made.add_step({{1, 1}, {30, 1}});
  made.add_step({{1, 1}, {1, 1}});
  CHECK(find_differences(made.run, {}, {}).findings.empty());
}

TEST_CASE("a link with a tenth of its bandwidth is named, whatever waiting adds", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 25}, {1, 25}});
  made.add_step({{1, 10}, {1, 10}});
  const Differences found = find_differences(made.run, {}, {});
  REQUIRE(found.findings.size() == 1);
  const Finding& finding = found.findings[0];
  CHECK(finding.is_link);
  CHECK(finding.node == 0);
  CHECK(finding.other_node == 1);
  CHECK(finding.rate_ratio == Approx(0.1));
  // Of two activations and two gradients, what bandwidth takes.
  CHECK(finding.predicted_seconds == Approx(4 * 0.016));
  CHECK(finding.measured_seconds == Approx(4 * 0.160));
  CHECK(found.corrections.bandwidth_ratio(1, 0) == Approx(0.1));
  CHECK(found.corrections.devices.empty());
  CHECK(to_json(finding).at("other_node") == Json(1));
}

TEST_CASE("what a receiver waits for its sender is not the link's", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 1}, {1, 1}});
  // Every message begins half a second late; the one who receives it has waited.
  const std::vector<plan::Action>& sends = made.role_of(0).actions;
  const std::vector<plan::Action>& receives = made.role_of(1).actions;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    cost_model::MeasuredStep& measured = made.run.steps[0].ranks[rank];
    const std::vector<plan::Action>& actions = rank == 0 ? sends : receives;
    for (std::size_t i = 0; i < actions.size(); ++i) {
      if (!plan::is_edge(actions[i].kind)) continue;
      const bool receive = actions[i].kind == plan::ActionKind::ReceiveActivation ||
                           actions[i].kind == plan::ActionKind::ReceiveGradient;
      if (!receive) measured.start[i] = 0.5;
      measured.end[i] = 0.52;
    }
  }
  CHECK(find_differences(made.run, {}, {}).findings.empty());
}

TEST_CASE("what is known is not found again, and what is new comes on top", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 10}, {8, 10}});
  Corrections known;
  known.multiply_bandwidth(0, 1, 0.1);
  known.multiply_rate(1, 0, 0.125);
  SECTION("the plan was chosen before it was known") {
    const Differences found = find_differences(made.run, {}, known);
    CHECK(found.findings.empty());
    CHECK(found.corrections == known);
  }
  SECTION("the plan was chosen with it") {
    const Differences found = find_differences(made.run, known, known);
    CHECK(found.findings.size() == 2);
    CHECK(found.corrections.bandwidth_ratio(0, 1) == Approx(0.01));
    CHECK(found.corrections.rate_ratio(1, 0) == Approx(0.125 / 8));
  }
}

TEST_CASE("a collective tells of the link between its nodes, and inside one of its own", "[adaptation]") {
  HandMade made({{2, 2}}, {}, {{0, 0, "cpu"}, {1, 0, "cpu"}});
  made.add_step({{1, 5}, {1, 5}});
  SECTION("two nodes") { CHECK(find_differences(made.run, {}, {}).corrections.bandwidth_ratio(0, 1) == Approx(0.2)); }
  SECTION("one node") {
    made.run.ranks[1] = {0, 1, "cpu"};
    CHECK(find_differences(made.run, {}, {}).corrections.bandwidth_ratio(0, 0) == Approx(0.2));
  }
}

TEST_CASE("a collective of three nodes tells of the links that nothing else tells of", "[adaptation]") {
  // Replicas on nodes 0, 1 and 2 in the first stage, the second stage on node 0 again.
  HandMade made({{2, 2, 2}, {6}}, {3}, {{0, 0, "cpu"}, {1, 0, "cpu"}, {2, 0, "cpu"}, {0, 1, "cpu"}});
  made.add_step({{1, 4}, {1, 4}, {1, 4}, {1, 4}});
  const Differences found = find_differences(made.run, {}, {});
  CHECK(found.corrections.bandwidth_ratio(0, 1) == Approx(0.25));
  CHECK(found.corrections.bandwidth_ratio(1, 2) == Approx(0.25));
}

TEST_CASE("short messages, and those that latency makes, tell nothing", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 10}, {1, 10}});
  // Less than a millisecond; latency is the larger part.
  const auto [scale, latency] = GENERATE(table<double, double>({{1e-3, kLatency}, {1, 0.6 * kMessage}}));
  for (std::size_t at = 0; at < made.run.latencies.actions.size(); ++at) {
    cost_model::SimulatedAction& predicted = made.run.basis.predicted.actions[at];
    if (predicted.end != kMessage) continue;
    predicted.end *= scale;
    made.run.latencies.actions[at].end = latency * scale;
  }
  for (cost_model::MeasuredStep& rank : made.run.steps[0].ranks) {
    for (double& end : rank.end) {
      if (end > 0.1) end *= scale;
    }
  }
  CHECK(find_differences(made.run, {}, {}).corrections.links.empty());
}

TEST_CASE("ranks of a mesh wait inside their work: nothing is said of their devices", "[adaptation]") {
  HandMade made = pipeline();
  made.add_step({{1, 1}, {10, 1}});
  CHECK(find_differences(made.run, {}, {}).findings.size() == 1);
  plan::Stage& stage = made.run.basis.plan.stages[1];
  stage.zero_stage = 2;  // gathers beside it
  CHECK(find_differences(made.run, {}, {}).findings.empty());
  stage.zero_stage = 0;
  stage.replicas[0].expert = 2;  // experts' rows are exchanged in it
  CHECK(find_differences(made.run, {}, {}).findings.empty());
}
