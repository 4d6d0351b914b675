// A run that proves to be on other devices or links than its plan took them for.
#include "launcher/control/coordinator_input.h"
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Two nodes of two ranks that train under a plan whose steps are looked at.
class LookedRun : public Bench {
 public:
  explicit LookedRun(int max_restarts = 3, bool looked = true) : Bench(2, 30, true, 5, max_restarts) {
    looked_at = looked;
    train(2);
  }
  void step_all(std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number <= last; ++number)
      for (int rank = 0; rank < num_ranks; ++rank) step(10 + rank / 2, rank, number);
  }
  void save_all(std::int64_t number) {
    for (int rank = 0; rank < num_ranks; ++rank) saved(10 + rank / 2, rank, number);
    published(number);
  }
  /// Far enough that it can be looked at, with a checkpoint behind it.
  void reach_look(std::int64_t first = 1) {
    step_all(first, first + 4);
    save_all(first + 4);
    step_all(first + 5, first + 6);
  }
  /// The ranks save after `number` and end, and the next generation goes on from there.
  void move_after(std::int64_t number) {
    step_all(number, number);
    save_all(number);
    for (int rank = 0; rank < num_ranks; ++rank) finished(10 + rank / 2, rank);
    for (int agent : {10, 11}) ended(agent);
    recover("folder", number);
    ++generation;
  }
  /// A slow link, and a plan on node 0 alone.
  void find(bool with_plan = true, int of_generation = 1) {
    calibrate(of_generation, {JsonObject{{"what", "link"}, {"rate_ratio", 0.1}}},
              with_plan ? ranks_on(0) : std::vector<RankBinding>());
  }
  [[nodiscard]] std::size_t num_saves() const { return sent_to(10, control::AgentCommand::kSave).size(); }
  [[nodiscard]] std::size_t num_starts() const { return sent_to(10, control::AgentCommand::kStart).size(); }
  int num_ranks = 4;
};

}  // namespace

TEST_CASE("ranks are asked for the times of a few early steps, and later ones", "[coordinator]") {
  SECTION("of a plan that the search chose") {
    LookedRun run;
    const control::Work work = run.sent_to(11, control::AgentCommand::kStart).back().start().work();
    REQUIRE(work.looks_size() == 2);  // of 100 steps
    CHECK(work.looks(0).first_step() == 4);
    CHECK(work.looks(0).last_step() == 7);
    CHECK(work.looks(1).first_step() == 31);
    CHECK(work.looks(1).last_step() == 34);
    CHECK_FALSE(work.has_trace());
    CHECK(run.core().looks() == std::vector<TraceSteps>{{4, 7}, {31, 34}});
  }
  SECTION("not of one that was given") {
    LookedRun run(3, false);
    CHECK(run.sent_to(11, control::AgentCommand::kStart).back().start().work().looks_size() == 0);
  }
}

TEST_CASE("a plan that does more on what there is takes over at a step boundary", "[coordinator]") {
  LookedRun run;
  run.reach_look();
  const std::size_t starts = run.num_starts();
  CHECK(run.core().may_move());
  run.find();
  REQUIRE(run.events_of("calibrated").size() == 1);
  CHECK(run.events_of("calibrated")[0]["generation"] == Json(1));
  CHECK(run.events_of("calibrated")[0]["rate_ratio"].number() == 0.1);
  REQUIRE(run.num_saves() == 1);
  CHECK(run.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  CHECK(run.num_starts() == starts);  // ranks take their step to its end
  CHECK_FALSE(run.core().undisturbed());
  CHECK(run.core().plans_taken() == 1);

  run.move_after(8);
  CHECK(run.core().plans_taken() == 2);
  REQUIRE(run.num_starts() == starts + 1);
  const control::StartGeneration start = run.sent_to(10, control::AgentCommand::kStart).back().start();
  CHECK(start.work().generation() == 2);
  CHECK(start.work().checkpoint().from() == "folder");
  CHECK(start.work().looks(0).first_step() == 12);  // it is looked at again
  CHECK(run.sent_to(11, control::AgentCommand::kStart).size() == starts);
  CHECK_FALSE(run.events_of("generation_started").back().object().contains("restarts"));
  CHECK_FALSE(run.result);
  CHECK(run.core().undisturbed());
}

TEST_CASE("what was found is told, and without a better plan nothing else happens", "[coordinator]") {
  LookedRun run;
  run.step_all(1, 7);
  run.find(false);
  CHECK(run.events_of("calibrated").size() == 1);
  CHECK(run.num_saves() == 0);
  CHECK(run.core().undisturbed());
}

TEST_CASE("a generation does not end for another plan before there is a checkpoint", "[coordinator]") {
  LookedRun run;
  run.step_all(1, 7);
  run.find();
  REQUIRE(run.num_saves() == 1);
  CHECK_FALSE(run.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  run.step_all(8, 8);
  SECTION("made: it ends with the next") {
    run.save_all(8);
    REQUIRE(run.num_saves() == 2);
    CHECK(run.sent_to(10, control::AgentCommand::kSave)[1].save().stop());
    run.move_after(9);
    CHECK(run.core().plans_taken() == 2);
  }
  SECTION("not made: it goes on as it is") {
    for (int rank = 0; rank < run.num_ranks; ++rank)
      run.saved(10 + rank / 2, rank, 8, 0.5, rank == 3 ? "disk full" : "");
    CHECK(run.events_of("checkpoint_failed").size() == 1);
    CHECK(run.num_saves() == 1);
    CHECK(run.core().undisturbed());
    run.step_all(9, 10);
    run.save_all(10);
    CHECK(run.num_saves() == 1);
  }
  SECTION("not published: likewise, and it may still move three times") {
    for (int round = 0; round < 4; ++round) {
      for (int rank = 0; rank < run.num_ranks; ++rank) run.saved(10 + rank / 2, rank, 8 + round);
      run.published(8 + round, Error{ErrorCode::Unavailable, "disk", "", "", "", ""});
      CHECK(run.core().may_move());
      run.step_all(9 + round, 9 + round);
      run.find();
    }
    CHECK(run.num_saves() == 5);
  }
  SECTION("a stop is asked for meanwhile: it ends there") {
    run.stop(15);
    const std::size_t saves = run.num_saves();
    CHECK(run.sent_to(10, control::AgentCommand::kSave).back().save().stop());
    run.save_all(8);
    CHECK(run.num_saves() == saves);
    CHECK(run.core().plans_taken() == 1);
  }
  SECTION("a rank ends meanwhile: the plan that ran goes on") {
    run.exit(11, 2, "signal 9", false);
    for (int agent : {10, 11}) run.ended(agent);
    run.recover("", 0);
    run.tick(10);
    CHECK(run.core().plans_taken() == 1);
    CHECK(run.sent_to(11, control::AgentCommand::kStart).back().start().work().generation() == 2);
  }
}

TEST_CASE("a run does not move when it is disturbed, or may not", "[coordinator]") {
  const std::string why = GENERATE("stop asked for", "rank failed", "another generation", "node gone", "no restarts");
  INFO(why);
  LookedRun run(why == "no restarts" ? 0 : 3);
  run.step_all(1, 7);
  if (why == "stop asked for") run.stop(15);
  if (why == "rank failed") run.exit(10, 0, "signal 9", false);
  if (why == "node gone") run.gone(10);
  const std::size_t saves = run.num_saves();
  const int of_generation = why == "another generation" ? 2 : 1;
  run.find(true, of_generation);
  CHECK(run.events_of("calibrated").size() == 1);
  CHECK(run.num_saves() == saves);
  CHECK_FALSE(run.core().takes_plan_now());
}

TEST_CASE("a failure on the way to another plan: the one that ran goes on", "[coordinator]") {
  LookedRun run;
  run.step_all(1, 5);
  run.save_all(5);
  run.step_all(6, 7);
  run.find();
  REQUIRE(run.num_saves() == 1);
  run.exit(11, 2, "signal 9", false);
  for (int agent : {10, 11}) run.ended(agent);
  run.recover("folder", 5);
  run.tick(10);
  CHECK(run.core().plans_taken() == 1);
  CHECK(run.sent_to(11, control::AgentCommand::kStart).back().start().work().generation() == 2);
  run.generation = 2;
  run.step_all(6, 10);
  run.tick(0.1);
  CHECK_FALSE(run.asked_for_plan);  // no node came back
  CHECK(run.core().undisturbed());
  // And it can move yet.
  run.find(true, 2);
  CHECK(run.num_saves() == 2);
}

TEST_CASE("a run moves at most three times", "[coordinator]") {
  LookedRun run;
  std::int64_t step = 0;
  for (int move = 1; move <= 4; ++move) {
    run.reach_look(step + 1);
    run.calibrate(run.generation, {}, run.core().measurements().ranks);
    CHECK(run.num_saves() == static_cast<std::size_t>(std::min(move, 3)));
    step += 8;
    if (move < 4) run.move_after(step);
  }
  CHECK(run.generation == 4);
}

TEST_CASE("a run whose steps are all taken does not move", "[coordinator]") {
  LookedRun run;
  run.step_all(1, 100);
  run.find();
  CHECK(run.num_saves() == 0);
}

TEST_CASE("a calibration is the same after the journal", "[coordinator]") {
  CalibrationRecord record;
  record.generation = 3;
  record.findings = {JsonObject{{"what", "device"}, {"node", 2}}};
  record.known.multiply_rate(2, 0, 0.1);
  if (GENERATE(false, true)) {
    record.plan.emplace();
    record.plan->chosen.plan_json = "{}";
    record.plan->chosen.looked_at = true;
    record.plan->chosen.ranks = {{1, 0, "cpu"}};
    record.plan->known = record.known;
  }
  const auto read = calibration_record_from_json(to_json(record));
  REQUIRE(read);
  CHECK(read->generation == 3);
  CHECK(read->findings == record.findings);
  CHECK(read->known == record.known);
  REQUIRE(read->plan.has_value() == record.plan.has_value());
  if (!read->plan) return;
  CHECK(read->plan->chosen.looked_at);
  CHECK(read->plan->known == record.known);
  CHECK(read->plan->chosen.ranks.size() == 1);
}
