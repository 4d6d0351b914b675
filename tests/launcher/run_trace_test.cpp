#include "launcher/control/run_trace.h"

#include <limits>

#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

struct Fixture {
  model::ModelGraph graph = make_chain_graph({.tied = false});
  plan::Plan plan = make_plan(graph, make_cpu_cluster({2}), {.cuts = {3}, .samples = {{4}, {4}}, .count = 1});

  [[nodiscard]] cost_model::TraceBasis basis() const {
    cost_model::Simulation predicted;
    for (std::size_t role = 0; role < plan.roles.size(); ++role) {
      for (std::size_t i = 0; i < plan.roles[role].actions.size(); ++i)
        predicted.actions.push_back({static_cast<int>(role), static_cast<int>(i), 0, 0, 0});
    }
    return {plan, predicted, plan::make_groups(plan, graph), {"node 0 (a)", "node 1 (b)"}};
  }

  /// The rank's first action takes 2 ms, the others no time.
  [[nodiscard]] RankTrace trace(int rank, std::int64_t begin, std::int64_t offset = 0) const {
    const std::size_t count = plan.roles[static_cast<std::size_t>(rank)].actions.size();
    RankTrace trace{begin,
                    offset,
                    offset == 0 ? 0 : 1000,
                    0.01,
                    std::vector<double>(count, 0.002),
                    std::vector<double>(count, 0.002)};
    trace.start[0] = 0;
    return trace;
  }
  [[nodiscard]] StepRow row(std::int64_t step) const {
    StepRow row;
    row.step = step;
    // Rank 1's clock is a second ahead: it began 4 ms after rank 0.
    row.traces = {trace(0, step * 1'000'000'000), trace(1, (step + 1) * 1'000'000'000 + 4'000'000, 1'000'000'000)};
    return row;
  }
};

double first_measured(const Json& trace, int rank, const std::string& name) {
  for (const Json& event : trace["traceEvents"].array()) {
    if (event["ph"].string() == "X" && event["pid"].integer() == rank && event["name"].string() == name)
      return event["ts"].number();
  }
  return -1;
}

}  // namespace

TEST_CASE("clocks of nodes are brought to rank 0's, and the file says by how much", "[run_trace]") {
  const Fixture fixture;
  RunTrace trace({3, 4}, fixture.basis());
  CHECK_FALSE(trace.text());
  for (const std::int64_t step : {2, 3, 4, 5}) {
    StepRow row = fixture.row(step);
    REQUIRE(trace.add(row));
    CHECK(trace.complete() == (step >= 4));
  }
  const auto text = trace.text();
  REQUIRE(text);
  const auto json = parse_json(*text);
  REQUIRE(json);
  CHECK(first_measured(*json, 0, "step 3") == 0);
  CHECK(first_measured(*json, 1, "step 3") == Approx(4'000));
  CHECK(first_measured(*json, 1, "step 4") == Approx(1'004'000));
  CHECK(first_measured(*json, 0, "step 5") == -1);
  CHECK((*json)["otherData"]["steps"] == Json(JsonArray{Json(3), Json(4)}));
  const Json& clock = (*json)["otherData"]["clocks"].array()[1];
  CHECK(clock["node"].string() == "node 1 (b)");
  CHECK(clock["offset_seconds"].number() == Approx(1));
  CHECK(clock["error_seconds"].number() == Approx(1e-6));
}

TEST_CASE("times that are not those of the rank's actions leave the step out", "[run_trace]") {
  const Fixture fixture;
  RunTrace trace({3, 4}, fixture.basis());
  StepRow short_row = fixture.row(3);
  short_row.traces[1].end.pop_back();
  const auto refused = trace.add(short_row);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().path == "rank 1, step 3");
  StepRow backwards = fixture.row(3);
  backwards.traces[0].end[0] = -1;
  CHECK_FALSE(trace.add(backwards));
  StepRow no_number = fixture.row(3);
  no_number.traces[0].start[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(trace.add(no_number));
  StepRow missing = fixture.row(3);
  missing.traces.pop_back();
  CHECK_FALSE(trace.add(missing));
  CHECK_FALSE(trace.text());
  StepRow good = fixture.row(4);
  REQUIRE(trace.add(good));
  CHECK(trace.complete());
  CHECK((*parse_json(*trace.text()))["otherData"]["steps"] == Json(JsonArray{Json(4)}));
}

TEST_CASE("a trace that no viewer opens is refused with what fits", "[run_trace]") {
  const Fixture fixture;
  CHECK(check_trace_size(fixture.plan, {1, 100}));
  const auto refused = check_trace_size(fixture.plan, {1, 1'000'000'000});
  REQUIRE_FALSE(refused);
  CHECK(refused.error().path == "--trace-steps");
  CHECK(refused.error().got == "1000000000 steps");
}
