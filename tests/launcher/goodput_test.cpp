// Times of the sequences are such that each class is a sum of digits of its own: 1000 for the start, 100 for a
// checkpoint or a detection, 10 for a step.
#include "launcher/control/goodput.h"

#include <algorithm>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// A run as it is recorded. `restarts`: the coordinator is made anew after every line.
class Run {
 public:
  explicit Run(bool restarts = false) : restarts_(restarts) {
    event(0, {{"type", "generation_started"}, {"generation", 1}});
  }

  void event(double at, JsonObject event) {
    goodput_.add(Json(std::move(event)), at_second(at));
    if (restarts_) goodput_ = Goodput::from_json(*parse_json(to_text(goodput_.to_json())));
  }
  /// Ends at `at`.
  void step(double at, std::int64_t step, double seconds, int generation = 0) {
    StepRow row;
    row.step = step;
    row.generation = generation;
    row.step_seconds = seconds;
    goodput_.add(row, at_second(at));
    if (restarts_) goodput_ = Goodput::from_json(*parse_json(to_text(goodput_.to_json())));
  }
  void rank_fails(double at, int rank, double suspected_seconds = 0) {
    event(at, {{"type", "worker_failed"},
               {"rank", rank},
               {"node", 0},
               {"cause", "signal 9"},
               {"evidence", "first\nlast words \n"},
               {"log", "logs/stderr"},
               {"suspected_seconds", suspected_seconds}});
  }
  void node_is_lost(double at, JsonArray ranks) {
    event(at, {{"type", "node_lost"}, {"node", 1}, {"cause", "its agent died"}, {"ranks", std::move(ranks)}});
  }
  void goes_on(double at, int generation, std::int64_t after_step) {
    event(at, {{"type", "generation_started"}, {"generation", generation}, {"after_step", after_step}});
  }
  void saved(double at, double copy_seconds, const char* type = "checkpoint_saved") {
    event(at, {{"type", type}, {"copy_seconds", copy_seconds}});
  }
  [[nodiscard]] GoodputReport end(double at) const { return goodput_.report(at_second(at)); }

 private:
  static TimePoint at_second(double second) {
    return TimePoint(std::chrono::seconds(5000)) +
           std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(second));
  }
  bool restarts_;
  Goodput goodput_{at_second(0)};
};

double sum(const GoodputReport& report) {
  return report.useful + report.start + report.checkpoint + report.detection + report.recovery + report.recomputed +
         report.slower_plan + report.other;
}

}  // namespace

TEST_CASE("a run without failure: start, copies, steps, and the rest", "[goodput]") {
  Run run;
  run.step(1010, 1, 10);
  run.step(1020, 2, 10);
  run.step(1130, 3, 10);  // after a copy
  run.saved(1130.5, 100);
  const GoodputReport report = run.end(1131);
  CHECK(report.total == 1131);
  CHECK(report.start == 1000);
  CHECK(report.checkpoint == 100);
  CHECK(report.useful == 30);
  CHECK(report.other == 1);
  CHECK(report.detection + report.recovery + report.recomputed + report.slower_plan == 0);
  CHECK(report.num_failures == 0);
  const auto lines = goodput_lines(report);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0] == "goodput: 2.7 % of 1131.00 s; lost to start 1000.00 s, checkpoints 100.00 s, other 1.00 s");
}

TEST_CASE("a copy of a checkpoint that failed was waited for too", "[goodput]") {
  Run run;
  run.step(10, 1, 10);
  run.saved(120, 100, "checkpoint_failed");
  CHECK(run.end(120).checkpoint == 100);
}

TEST_CASE("a failure: the step under way, detection, recovery, steps that are taken again", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  for (int step = 1; step <= 3; ++step) run.step(1000 + 10 * step, step, 10);
  run.rank_fails(1140, 1);  // the fourth step was to end at 1040
  run.goes_on(1150, 2, 1);
  run.step(3150, 2, 10);
  run.step(3160, 3, 10);
  const GoodputReport report = run.end(3165);
  CHECK(report.total == 3165);
  CHECK(report.start == 1000);
  CHECK(report.detection == 100);
  CHECK(report.recovery == 2000);
  CHECK(report.recomputed == 30);  // the second, the third and what was done of the fourth
  CHECK(report.useful == 30);
  CHECK(report.other == 5);
  REQUIRE(report.failures.size() == 1);
  const FailureBlock& block = report.failures[0];
  CHECK(block.rank == 1);
  CHECK(block.generation == 1);
  CHECK(block.after_step == 3);
  CHECK(block.steps_lost == 2);
  CHECK(block.detection_seconds == 100);
  CHECK(block.recovery_seconds == 2000);
  const std::vector<std::string> expected{
      "goodput: 0.9 % of 3165.00 s in steps that count; the rest:",
      "  start              1000.00 s  31.6 %",
      "  detection           100.00 s   3.2 %",
      "  recovery           2000.00 s  63.2 %",
      "  recomputed steps     30.00 s   0.9 %",
      "  other                 5.00 s   0.2 %",
      "failure 1: rank 1 on node 0: signal 9; generation 1, after step 3",
      "  evidence: last words (logs/stderr)",
      "  action:   generation 2 went on after step 1; 2 steps lost, 100.00 s to see it, 2000.00 s to the next step"};
  CHECK(goodput_lines(report) == expected);
}

TEST_CASE("a step that was taken and is told after the failure is not lost", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  for (int step = 1; step <= 3; ++step) run.step(1000 + 10 * step, step, 10, 1);
  run.rank_fails(1140, 1);
  run.step(1145, 4, 8, 1);
  run.goes_on(1150, 2, 4);
  run.step(3160, 5, 10, 2);
  const GoodputReport report = run.end(3165);
  CHECK(report.useful == 48);
  CHECK(report.detection == 100);
  CHECK(report.recovery == 2010);
  CHECK(report.recomputed == 2);  // of the ten seconds in which the fifth may have begun
  CHECK(sum(report) == report.total);
  CHECK(report.failures[0].steps_lost == 0);
}

TEST_CASE("a word of a failure comes before the step is overdue", "[goodput]") {
  Run run;
  run.step(10, 1, 10);
  run.rank_fails(17, 0, 2);
  const GoodputReport report = run.end(18);
  CHECK(report.recomputed == 5);
  CHECK(report.detection == 2);
  CHECK(report.recovery == 1);  // to the end of the run
  CHECK(report.useful == 10);
  REQUIRE(report.failures.size() == 1);
  CHECK(report.failures[0].action == "the run ended");
}

TEST_CASE("a second failure before the next step divides the recovery", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  run.step(10, 1, 10);
  run.rank_fails(11, 1);
  SECTION("in the generation that followed") {
    run.goes_on(12, 2, 0);
    run.rank_fails(1111, 2, 100);
    run.goes_on(1112, 3, 0);
    run.step(3121, 1, 10);
    const GoodputReport report = run.end(3121);
    CHECK(report.recovery == 3000);
    CHECK(report.detection == 100);
    CHECK(report.recomputed == 11);
    CHECK(report.useful == 10);
    CHECK(sum(report) == report.total);
    REQUIRE(report.failures.size() == 2);
    CHECK(report.failures[0].recovery_seconds == 1000);
    CHECK(report.failures[0].steps_lost == 1);
    CHECK(report.failures[1].recovery_seconds == 2000);
    CHECK(report.failures[1].detection_seconds == 100);
    CHECK(report.failures[1].steps_lost == 0);
  }
  SECTION("before it began") {
    run.node_is_lost(1011, {Json(4), Json(5)});
    run.goes_on(1112, 2, 0);
    run.step(3021, 1, 10);
    const GoodputReport report = run.end(3021);
    REQUIRE(report.failures.size() == 2);
    CHECK(report.failures[0].action == "another failure followed");
    CHECK(report.failures[0].recovery_seconds == 1000);
    CHECK(report.failures[1].rank == 4);
    CHECK(report.failures[1].recovery_seconds == 2000);
    CHECK(report.failures[1].action == "generation 2 went on after step 0");
  }
}

TEST_CASE("a lost node that had no rank costs nothing", "[goodput]") {
  Run run;
  run.step(10, 1, 10);
  run.node_is_lost(15, {});
  run.step(20, 2, 10);
  const GoodputReport report = run.end(20);
  CHECK(report.useful == 20);
  CHECK(report.detection + report.recovery + report.recomputed == 0);
  REQUIRE(report.failures.size() == 1);
  CHECK(report.failures[0].action == "left out: no rank ran there");
}

TEST_CASE("a failure before the first step ends the start", "[goodput]") {
  Run run;
  run.rank_fails(1000, 0);
  run.goes_on(1001, 2, 0);
  run.step(1110, 1, 10);
  const GoodputReport report = run.end(1110);
  CHECK(report.start == 1000);
  CHECK(report.recovery == 100);
  CHECK(report.useful == 10);
}

TEST_CASE("under another plan, what steps take beyond the first plan's median is lost to the slower plan",
          "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  double at = 0;
  run.step(at += 50, 1, 50);  // it warms up
  for (int step = 2; step <= 7; ++step) run.step(at += 10, step, 10);
  run.node_is_lost(at, {Json(2)});
  run.event(at, {{"type", "replanned"}});
  run.goes_on(at, 2, 7);
  for (int step = 8; step <= 10; ++step) run.step(at += 13, step, 13);
  run.step(at += 9, 11, 9);  // faster for once
  const GoodputReport report = run.end(at);
  CHECK(report.slower_plan == 9);
  CHECK(report.useful == 50 + 60 + 30 + 9);
  CHECK(report.recomputed == 0);
  CHECK(sum(report) == report.total);
}

TEST_CASE("steps that overlap are not told as more time than there was", "[goodput]") {
  Run run;
  run.step(10, 1, 10);
  run.step(15, 2, 10);
  const GoodputReport report = run.end(15);
  CHECK(report.useful == 15);
  CHECK(report.other == 0);
}

TEST_CASE("a plan that took no step is no measure of the others", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  run.node_is_lost(1000, {Json(2)});
  run.event(1100, {{"type", "replanned"}});
  run.goes_on(1100, 2, 0);
  for (int step = 1; step <= 3; ++step) run.step(1100 + 10 * step, step, 10);
  const GoodputReport report = run.end(1130);
  CHECK(report.start == 1000);
  CHECK(report.recovery == 100);
  CHECK(report.slower_plan == 0);
  CHECK(report.useful == 30);
  CHECK(report.other == 0);
}

TEST_CASE("what is lost of steps that overlap is no more than the time there was", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  run.step(10, 1, 10);
  run.step(15, 2, 10);
  SECTION("taken again") {
    run.rank_fails(15, 0);
    run.goes_on(115, 2, 0);
    run.step(125, 1, 10);
    const GoodputReport report = run.end(125);
    CHECK(report.recomputed == 15);
    CHECK(report.recovery == 100);
    CHECK(report.useful == 10);
    CHECK(report.other == 0);
  }
  SECTION("under a slower plan") {
    run.event(15, {{"type", "replanned"}});
    run.goes_on(15, 2, 2);
    run.step(115, 3, 100);
    run.step(145, 4, 100);  // 30 of it are its own: 22.5 beyond the 7.5 of the first plan
    const GoodputReport report = run.end(145);
    CHECK(report.slower_plan == 92.5 + 22.5);
    CHECK(report.useful == 15 + 7.5 + 7.5);
    CHECK(report.other == 0);
  }
  SECTION("beside a copy") {
    run.saved(15, 4);  // steps take all the time there is: the copy was beside them
    const GoodputReport report = run.end(17);
    CHECK(report.checkpoint == 2);
    CHECK(report.useful == 15);
    CHECK(report.other == 0);
  }
}

TEST_CASE("steps that are told late, all at once, keep their times", "[goodput]") {
  const bool restarts = GENERATE(false, true);
  Run run(restarts);
  run.step(10, 1, 10);
  for (int step = 2; step <= 4; ++step) run.step(45, step, 10);  // the coordinator stood still
  const GoodputReport report = run.end(46);
  CHECK(report.useful == 40);
  CHECK(report.other == 6);
}

TEST_CASE("a run with many failures keeps the newest and counts all", "[goodput]") {
  Run run;
  std::int64_t step = 0;
  double at = 0;
  for (int failure = 1; failure <= 60; ++failure) {
    run.step(at += 10, ++step, 10);
    run.rank_fails(at += 1, failure % 2);
    run.goes_on(at, failure + 1, step);
  }
  const GoodputReport report = run.end(at);
  CHECK(report.num_failures == 60);
  REQUIRE(report.failures.size() == kMostBlocks);
  CHECK(report.failures.back().generation == 60);
  const auto lines = goodput_lines(report);
  CHECK(std::find(lines.begin(), lines.end(), "of 60 failures the last 50; events.jsonl has all") != lines.end());
  CHECK(goodput_event(report)["num_failures"] == Json(60));
  CHECK(goodput_event(report)["useful_seconds"].number() == 600);
}
