// Nodes that were lost and come back.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Two nodes of two ranks, of which the second one was lost; the first goes on alone in generation 2, from step 5.
class LonelyRun : public Bench {
 public:
  LonelyRun() : Bench(2, 30, true, 5, 3) {
    train(2);
    step_all(1, 7);
    save_all(5);
    gone(11);
    ended(10);
    recover("folder", 5);
    choose(ranks_on(0), {1});
    generation = 2;
    tick(0.1);
  }
  void step_all(std::int64_t first, std::int64_t last) {
    for (std::int64_t number = first; number <= last; ++number)
      for (int rank = 0; rank < num_ranks(); ++rank) step(10 + rank / 2, rank, number);
  }
  void save_all(std::int64_t number) {
    for (int rank = 0; rank < num_ranks(); ++rank) saved(10 + rank / 2, rank, number);
    published(number);
  }
  void finish_all() {
    for (int rank = 0; rank < num_ranks(); ++rank) finished(10 + rank / 2, rank);
    ended(10);
  }
  [[nodiscard]] int num_ranks() const { return generation == 2 ? 2 : 4; }
  [[nodiscard]] std::size_t num_starts(int agent) const { return sent_to(agent, control::AgentCommand::kStart).size(); }
};

}  // namespace

TEST_CASE("a node that is back is used once a plan with it does more", "[coordinator]") {
  LonelyRun run;
  CHECK(run.num_starts(10) == 3);
  run.join(21, 2, 1);
  CHECK(run.sent_to(21, control::AgentCommand::kOver).empty());
  CHECK(run.events_of("node_joined").size() == 3);
  // Not while the step that failed is not taken again.
  run.tick(0.1);
  CHECK_FALSE(run.asked_for_plan);
  run.step_all(6, 8);
  CHECK(run.core().due(run.clock.now()));
  run.tick(0.1);
  REQUIRE(run.asked_for_plan);
  CHECK(run.core().lost_nodes().empty());
  CHECK(run.core().planned_without() == std::vector<int>{1});
  CHECK_FALSE(run.core().takes_plan_now());
  CHECK_FALSE(run.core().undisturbed());  // its steps are not dropped from the journal now
  run.step_all(9, 9);
  run.choose(run.core().measurements().ranks);
  REQUIRE(run.sent_to(10, control::AgentCommand::kSave).size() == 1);
  CHECK(run.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  CHECK(run.core().plans_taken() == 2);

  SECTION("the generation saves and ends, and the next one has both") {
    run.step_all(10, 11);
    for (int rank : {0, 1}) run.saved(10, rank, 11);
    run.finish_all();
    CHECK_FALSE(run.looked_for_checkpoint);  // it is being published
    run.published(11);
    CHECK(run.core().plans_taken() == 3);
    run.recover("folder 11", 11);
    REQUIRE(run.num_starts(21) == 1);
    CHECK(run.num_starts(10) == 4);
    const control::StartGeneration start = run.sent_to(21, control::AgentCommand::kStart)[0].start();
    CHECK(start.work().generation() == 3);
    CHECK(start.work().checkpoint().from() == "folder 11");
    CHECK(start.ranks_size() == 2);
    const Json event = run.events_of("generation_started").back();
    CHECK(event["after_step"] == Json(11));
    CHECK_FALSE(event.object().contains("restarts"));
    run.tick(60);  // nothing is left of the generation before
    CHECK(run.sent_to(21, control::AgentCommand::kStop).empty());
    CHECK_FALSE(run.result);
    CHECK(run.core().undisturbed());
  }
  SECTION("the run takes its last step first") {
    run.step_all(10, 100);
    for (int rank : {0, 1}) run.saved(10, rank, 100);
    run.finish_all();
    run.published(100);
    REQUIRE(run.result);
    CHECK(run.result->exit_code == ExitCode::Done);
    CHECK(run.num_starts(21) == 0);
  }
  SECTION("a rank fails first: the old plan goes on, and then it is asked again") {
    run.exit(10, 0, "signal 9", false);
    run.ended(10);
    run.recover("folder", 5);
    CHECK(run.num_starts(21) == 0);
    run.tick(10);
    CHECK(run.num_starts(10) == 4);
    CHECK_FALSE(run.asked_for_plan);
    run.generation = 3;
    for (std::int64_t number = 6; number <= 10; ++number)
      for (int rank : {0, 1}) run.step(10, rank, number);
    run.tick(0.1);
    CHECK(run.asked_for_plan);
  }
}

TEST_CASE("where a plan with the node does not do more, nothing changes", "[coordinator]") {
  LonelyRun run;
  run.step_all(6, 8);
  run.join(21, 2, -1, "host11");  // without a number: its host says which one it is
  run.tick(0.1);
  REQUIRE(run.asked_for_plan);
  SECTION("the search stays") { run.choose(run.ranks_on(0)); }
  SECTION("there is none") {
    run.asked_for_plan = false;
    run.no_plan({ErrorCode::ResourceExhausted, "nothing fits", "", "", "", ""});
    CHECK(run.core().plans_taken() == 2);
  }
  CHECK(run.sent_to(10, control::AgentCommand::kSave).empty());
  run.tick(10);
  CHECK_FALSE(run.asked_for_plan);
  CHECK_FALSE(run.result);
  CHECK(run.core().undisturbed());
}

TEST_CASE("who was not lost, or is another node, is refused", "[coordinator]") {
  LonelyRun run;
  run.step_all(6, 8);
  SECTION("the number of a node that is here, and stays") {
    run.join(21, 2, 0);
    run.tick(5.2);
    CHECK(run.sent_to(21, control::AgentCommand::kOver).empty());
    CHECK_FALSE(run.core().due(run.clock.now()));
    run.clock.advance(Seconds(0.2));
    CHECK(run.core().due(run.clock.now()));
    run.tick(0);
  }
  SECTION("other devices") { run.join(21, 3, 1); }
  CHECK(run.sent_to(21, control::AgentCommand::kOver).size() == 1);
  run.tick(0.1);
  CHECK_FALSE(run.asked_for_plan);
}

TEST_CASE("a node that is started again before its loss is seen is not refused", "[coordinator]") {
  Bench run(2, 30, true, 5, 3);
  run.train(2);
  for (int rank = 0; rank < 4; ++rank) run.step(10 + rank / 2, rank, 1);
  const std::size_t before = run.events_of("node_joined").size();
  run.join(21, 2, 1);
  run.tick(0.6);
  CHECK(run.events_of("node_joined").size() == before);
  SECTION("it is back") {
    run.gone(11);
    CHECK(run.events_of("node_joined").size() == before + 1);
    CHECK(run.core().lost_nodes().empty());
    run.tick(10);
    CHECK(run.sent_to(21, control::AgentCommand::kOver).empty());
  }
  SECTION("it is gone again before the loss of the first is seen") {
    run.gone(21);
    run.gone(11);
    CHECK(run.events_of("node_joined").size() == before);
    CHECK(run.core().lost_nodes() == std::vector<int>{1});
  }
  SECTION("another one is lost, and it stays one too many") {
    run.gone(10);
    run.tick(5.4);
    CHECK(run.sent_to(21, control::AgentCommand::kOver).size() == 1);
  }
  SECTION("the coordinator was restarted, and waits for agents that come back") {
    run.restart();
    run.tick(10.2);
    CHECK(run.sent_to(21, control::AgentCommand::kOver).empty());
    run.tick(0.2);
    CHECK(run.sent_to(21, control::AgentCommand::kOver).size() == 1);
  }
}

TEST_CASE("a node beyond those that a run takes is refused", "[coordinator]") {
  LonelyRun run;
  run.step_all(6, 8);
  run.join(20, 2, 1);
  run.join(21, 2);
  CHECK(run.sent_to(20, control::AgentCommand::kOver).empty());
  CHECK(run.sent_to(21, control::AgentCommand::kOver).size() == 1);
}

TEST_CASE("another node takes the place of a lost one", "[coordinator]") {
  LonelyRun run;
  run.step_all(6, 8);
  run.join(21, 2);  // neither its number nor its host
  CHECK(run.sent_to(21, control::AgentCommand::kOver).empty());
  CHECK(run.events_of("node_joined").size() == 3);
  CHECK(run.core().planned_without() == std::vector<int>{1, 2});
  CHECK(run.core().lost_nodes() == std::vector<int>{1, 2});  // until a link to it is known
}

TEST_CASE("a node that is back while the others are still being stopped is not missed", "[coordinator]") {
  Bench bench(2, 30, true, 5, 3);
  bench.train(2);
  for (int rank = 0; rank < 4; ++rank) bench.step(10 + rank / 2, rank, 1);
  bench.gone(11);
  bench.join(21, 2, 1);
  bench.ended(10);
  bench.recover("folder", 0);
  CHECK_FALSE(bench.asked_for_plan);
  REQUIRE(bench.sent_to(21, control::AgentCommand::kStart).size() == 1);
  CHECK(bench.sent_to(21, control::AgentCommand::kStart)[0].start().ranks_size() == 2);
}

TEST_CASE("who is back while a plan is looked for belongs into it", "[coordinator]") {
  Bench bench(3, 30, true, 5, 3);
  bench.train(3);
  for (int rank = 0; rank < 6; ++rank) {
    bench.step(10 + rank / 2, rank, 1);
    bench.saved(10 + rank / 2, rank, 1);
  }
  bench.published(1);
  bench.gone(11);
  bench.gone(12);
  bench.ended(10);
  bench.recover("folder", 1);
  bench.choose(bench.ranks_on(0), {1, 2});
  bench.tick(10);
  bench.generation = 2;
  for (int rank : {0, 1}) bench.step(10, rank, 2);
  bench.join(21, 2, 1);
  bench.tick(0.1);
  REQUIRE(bench.asked_for_plan);  // without node 2
  bench.join(22, 2, 2);
  bench.choose(bench.core().measurements().ranks, {2});
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).empty());
  bench.tick(0.1);
  REQUIRE(bench.asked_for_plan);  // with both
  CHECK(bench.core().lost_nodes().empty());
  bench.choose(bench.core().measurements().ranks);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).size() == 1);
}
