// The trace of a run: two ranks on paper, and runs that went exactly as predicted.
#include "cost_model/measured_trace.h"

#include <algorithm>
#include <map>
#include <set>

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

using Interval = std::pair<double, double>;  // milliseconds

struct Fixture {
  model::ModelGraph graph = make_chain(2, 8);
  cluster::ResourceGraph resources =
      make_cluster({make_device("cpu", 1 << 30)}, {2}, 1, make_link("l", 0, 100), make_link("o", 0, 1e9));
  FakeCost cost{graph, resources};
  plan::Plan plan = make_plan(graph, resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 1);

  [[nodiscard]] TraceBasis basis(Simulation predicted) const {
    std::vector<std::string> nodes(static_cast<std::size_t>(plan::num_ranks(plan)), "node 0 (host)");
    return {plan, std::move(predicted), plan::make_groups(plan, graph), std::move(nodes)};
  }
};

/// Times by action's text; what is not named takes no time at the step's begin.
MeasuredStep measured(const plan::Role& role, double begin, double seconds, std::map<std::string, Interval> times) {
  MeasuredStep step{begin, seconds, {}, {}};
  for (const plan::Action& action : role.actions) {
    const auto found = times.find(to_text(action));
    const Interval interval = found == times.end() ? Interval{0, 0} : found->second;
    step.start.push_back(interval.first / 1e3);
    step.end.push_back(interval.second / 1e3);
    if (found != times.end()) times.erase(found);
  }
  CHECK(times.empty());
  return step;
}

/// The only event with this name on a rank's measured threads (or its predicted ones).
const Json& find(const Json& trace, int rank, const std::string& name, const std::string& category = "measured") {
  static const Json kNone;
  const Json* found = &kNone;
  for (const Json& event : trace["traceEvents"].array()) {
    if (event["ph"].string() != "X" || event["pid"].integer() != rank || event["name"].string() != name ||
        event["cat"].string() != category)
      continue;
    CHECK(found->is_null());
    found = &event;
  }
  INFO(name << " of rank " << rank << ", " << category);
  CHECK_FALSE(found->is_null());
  return *found;
}

bool has(const Json& trace, int rank, const std::string& name) {
  for (const Json& event : trace["traceEvents"].array()) {
    if (event["ph"].string() == "X" && event["pid"].integer() == rank && event["name"].string() == name &&
        event["cat"].string() == "measured")
      return true;
  }
  return false;
}

void check_span(const Json& event, double start_ms, double duration_ms) {
  CHECK(event["ts"].number() == Approx(start_ms * 1e3));
  CHECK(event["dur"].number() == Approx(duration_ms * 1e3));
}

Json parse(const std::string& text) {
  auto json = parse_json(text);
  REQUIRE(json);
  return *json;
}

/// Nothing takes time in the prediction but F of stage 0 (5 ms), its send (1 ms from when both had come, at 7), and the
/// step (60 ms).
Simulation prediction(const plan::Plan& plan) {
  Simulation simulation;
  simulation.estimate.step = Seconds(0.060);
  for (std::size_t role = 0; role < plan.roles.size(); ++role) {
    for (std::size_t i = 0; i < plan.roles[role].actions.size(); ++i) {
      SimulatedAction at{static_cast<int>(role), static_cast<int>(i), 0, 0, 0};
      const std::string text = to_text(plan.roles[role].actions[i]);
      if (text == "F0[0,2)") at.end = 0.005;
      if (text == "SEND_F0") {
        at.start = 0.005;
        at.transfer_start = 0.007;
        at.end = 0.008;
      }
      simulation.actions.push_back(at);
    }
  }
  return simulation;
}

}  // namespace

TEST_CASE("two ranks on paper: when partners came, predicted beside measured", "[measured_trace]") {
  const Fixture fixture;
  MeasuredTrace trace(fixture.basis(prediction(fixture.plan)));
  // Rank 1 begins 1 ms after rank 0, so that its 13 is rank 0's 14.
  const TracedStep step{7,
                        {measured(fixture.plan.roles[0], 100.000, 0.080,
                                  {{"F0[0,2)", {0, 10}},
                                   {"SEND_F0", {10, 14}},
                                   {"RECV_B0", {10, 40}},
                                   {"B0[0,2)", {40, 60}},
                                   {"REDUCE_NORM", {60, 75}},
                                   {"OPTIMIZER", {75, 80}}}),
                         measured(fixture.plan.roles[1], 100.001, 0.079,
                                  {{"RECV_F0", {0, 13}},
                                   {"F0[2,4)", {13, 25}},
                                   {"B0[2,4)", {25, 37}},
                                   {"SEND_B0", {37, 39}},
                                   {"REDUCE_NORM", {37, 74}},
                                   {"OPTIMIZER", {74, 79}}})}};
  trace.add(step);
  const Json json = parse(trace.text({{"plan_hash", "abc"}}));
  CHECK(json["otherData"]["plan_hash"].string() == "abc");

  check_span(find(json, 0, "F0[0,2)"), 0, 10);
  const Json& forward = find(json, 0, "F0[0,2)")["args"];
  CHECK(forward["step"].integer() == 7);
  CHECK(forward["action"].integer() == 0);
  CHECK(forward["measured_ms"].number() == Approx(10));
  CHECK(forward["predicted_ms"].number() == Approx(5));
  CHECK(forward["ratio"].number() == Approx(2));
  CHECK(find(json, 1, "F0[2,4)")["args"]["ratio"].is_null());  // predicted to take no time

  // Rank 1 was ready to receive long before: rank 0 sent at once, rank 1 waited from 1 to 10.
  CHECK_FALSE(has(json, 0, "wait SEND_F0"));
  check_span(find(json, 0, "SEND_F0"), 10, 4);
  check_span(find(json, 1, "wait RECV_F0"), 1, 9);
  check_span(find(json, 1, "RECV_F0"), 10, 4);
  const Json& send = find(json, 0, "SEND_F0")["args"];
  CHECK(send["measured_wait_ms"].number() == 0);
  CHECK(send["predicted_wait_ms"].number() == Approx(2));
  CHECK(send["predicted_ms"].number() == Approx(1));
  CHECK(send["ratio"].number() == Approx(4));
  CHECK(send["measured_start_ms"].number() == Approx(10));
  CHECK(send["predicted_start_ms"].number() == Approx(7));
  // The gradient came at 38; the sum of all ranks could begin at 60.
  check_span(find(json, 0, "wait RECV_B0"), 10, 28);
  check_span(find(json, 0, "RECV_B0"), 38, 2);
  check_span(find(json, 1, "wait REDUCE_NORM"), 38, 22);
  check_span(find(json, 1, "REDUCE_NORM"), 60, 15);
  CHECK_FALSE(has(json, 0, "wait REDUCE_NORM"));

  check_span(find(json, 0, "F0[0,2)", "predicted"), 0, 5);
  check_span(find(json, 0, "wait SEND_F0", "predicted"), 5, 2);
  check_span(find(json, 0, "SEND_F0", "predicted"), 7, 1);
  check_span(find(json, 1, "step 7"), 1, 79);
  CHECK(find(json, 1, "step 7")["args"]["predicted_ms"].number() == Approx(60));
}

TEST_CASE("what each action took without waiting, as it was and as it was predicted", "[measured_trace]") {
  const Fixture fixture;
  const Simulation simulation = prediction(fixture.plan);
  const TracedStep step{1,
                        {measured(fixture.plan.roles[0], 5, 0.1, {{"F0[0,2)", {0, 9}}, {"SEND_F0", {10, 14}}}),
                         measured(fixture.plan.roles[1], 5, 0.1, {{"RECV_F0", {2, 15}}})}};
  const auto took = moving_seconds(fixture.basis(simulation), step);
  const auto predicted = moving_seconds(fixture.plan, simulation);
  const auto at = [&](std::size_t role, const std::string& text) {
    const auto& actions = fixture.plan.roles[role].actions;
    const auto found =
        std::find_if(actions.begin(), actions.end(), [&](const plan::Action& one) { return to_text(one) == text; });
    REQUIRE(found != actions.end());
    return static_cast<std::size_t>(found - actions.begin());
  };
  REQUIRE(took.size() == 2);
  CHECK(took[0][at(0, "F0[0,2)")] == Approx(0.009));
  CHECK(took[1][at(1, "RECV_F0")] == Approx(0.005));  // from 10, when its sender came
  CHECK(predicted[0][at(0, "F0[0,2)")] == Approx(0.005));
  CHECK(predicted[0][at(0, "SEND_F0")] == Approx(0.001));
  CHECK(predicted[1][at(1, "F0[2,4)")] == 0);
}

TEST_CASE("a message that was gone before its receiver came did not wait for it", "[measured_trace]") {
  const Fixture fixture;
  MeasuredTrace trace(fixture.basis(prediction(fixture.plan)));
  trace.add({1,
             {measured(fixture.plan.roles[0], 5, 0.1, {{"SEND_F0", {10, 14}}}),
              measured(fixture.plan.roles[1], 5, 0.1, {{"RECV_F0", {20, 21}}})}});
  const Json json = parse(trace.text({}));
  CHECK_FALSE(has(json, 0, "wait SEND_F0"));
  check_span(find(json, 0, "SEND_F0"), 10, 4);
  check_span(find(json, 1, "RECV_F0"), 20, 1);
}

TEST_CASE("later steps follow on one axis, each beside its own prediction", "[measured_trace]") {
  const Fixture fixture;
  MeasuredTrace trace(fixture.basis(prediction(fixture.plan)));
  for (const int number : {1, 2})
    trace.add({number,
               {measured(fixture.plan.roles[0], 10 + 0.2 * number, 0.1, {{"F0[0,2)", {3, 10}}}),
                measured(fixture.plan.roles[1], 10 + 0.2 * number, 0.1, {})}});
  const Json json = parse(trace.text({}));
  std::set<std::int64_t> measured_at, predicted_at;
  for (const Json& event : json["traceEvents"].array()) {
    if (event["name"].string() != "F0[0,2)") continue;
    (event["cat"].string() == "measured" ? measured_at : predicted_at).insert(std::llround(event["ts"].number()));
  }
  CHECK(measured_at == std::set<std::int64_t>{3'000, 203'000});
  CHECK(predicted_at == std::set<std::int64_t>{0, 200'000});
}

TEST_CASE("a run that went as simulated has every ratio 1 and waits where the simulator waits", "[measured_trace]") {
  const model::ModelGraph graph = make_chain(5, 8);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30)}, {3}, 1, make_link("l", 0.25, 100), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  std::vector<plan::Plan> plans{
      make_plan(graph, resources, {{0, 2, {{0, 0}}, {2}}, {2, 4, {{0, 1}}, {2}}, {4, 7, {{0, 2}}, {2}}}, 4),
      make_plan(graph, resources, {{0, 4, {{0, 0}, {0, 1}}, {1, 1}}, {4, 7, {{0, 2}}, {2}}}, 3),
      make_chunked_plan(graph, resources, plan::ScheduleKind::Interleaved, 3, 2, 3),
      make_chunked_plan(graph, resources, plan::ScheduleKind::ZeroBubbleV, 3, 2, 6)};
  for (const plan::Plan& plan : plans) {
    const auto predicted = simulate(cost, plan);
    REQUIRE(predicted);
    std::vector<std::string> nodes(static_cast<std::size_t>(plan::num_ranks(plan)), "n");
    MeasuredTrace trace({plan, *predicted, plan::make_groups(plan, graph), nodes});
    TracedStep step{1, {}};
    for (int rank = 0; rank < plan::num_ranks(plan); ++rank) {
      const plan::RankPlace place = plan::place_of(plan, rank);
      MeasuredStep measured{50, predicted->estimate.step.value, {}, {}};
      for (const SimulatedAction& at : predicted->actions) {
        const plan::Role& role = plan.roles[static_cast<std::size_t>(at.role)];
        if (role.stage != place.stage) continue;
        measured.start.push_back(at.start);
        measured.end.push_back(at.end);
      }
      step.ranks.push_back(measured);
    }
    trace.add(step);
    const Json json = parse(trace.text({}));
    int waits = 0;
    for (const Json& event : json["traceEvents"].array()) {
      const Json& args = event["args"];
      if (event["ph"].string() != "X" || event["cat"].string() != "measured" ||
          event["name"].string().rfind("step", 0) == 0)
        continue;
      INFO(event["name"].string() << " of rank " << event["pid"].integer());
      CHECK(args["measured_ms"].number() == Approx(args["predicted_ms"].number()).margin(1e-5));
      if (!args["measured_wait_ms"].is_null())
        CHECK(args["measured_wait_ms"].number() == Approx(args["predicted_wait_ms"].number()).margin(1e-5));
      waits += event["name"].string().rfind("wait ", 0) == 0 ? 1 : 0;
    }
    CHECK(waits > 0);
  }
}
