// Checkpoints, requests to stop, and generations that follow a failed one.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a checkpoint is published when every rank's shard is there", "[coordinator]") {
  Bench bench(1, 30, true, 5);
  bench.train(1);
  bench.saved(10, 1, 5, 0.25);
  CHECK(bench.publications.empty());
  bench.saved(10, 0, 5, 0.125);
  REQUIRE(bench.publications.size() == 1);
  CHECK(bench.publications[0].progress.step == 5);
  CHECK(bench.publications[0].progress.next_sample == 40);
  REQUIRE(bench.publications[0].shards.size() == 2);
  CHECK(bench.publications[0].shards[1].file == "rank_1");
  CHECK(bench.events_of("checkpoint_saved").empty());
  bench.published(5);
  REQUIRE(bench.events_of("checkpoint_saved").size() == 1);
  CHECK(bench.events_of("checkpoint_saved")[0]["step"] == Json(5));
  CHECK(bench.events_of("checkpoint_saved")[0]["copy_seconds"] == Json(0.25));  // the step waits for the slowest
  // One that a rank could not write is told and costs nothing more.
  bench.saved(10, 0, 10, 0.5, "no space");
  bench.saved(10, 1, 10);
  CHECK(bench.publications.size() == 1);
  REQUIRE(bench.events_of("checkpoint_failed").size() == 1);
  CHECK(bench.events_of("checkpoint_failed")[0]["cause"] == Json("no space"));
  CHECK(bench.events_of("checkpoint_failed")[0]["copy_seconds"] == Json(0.5));
  CHECK_FALSE(bench.result);
}

TEST_CASE("the run ends when its last checkpoint is published", "[coordinator]") {
  Bench bench(1, 30, true, 5);
  bench.train(1);
  for (int rank : {0, 1}) {
    bench.step(10, rank, 100);
    bench.saved(10, rank, 100);
    bench.finished(10, rank);
  }
  bench.ended(10);
  CHECK_FALSE(bench.result);
  SECTION("it is there") {
    bench.published(100);
    REQUIRE(bench.result);
    CHECK(bench.result->exit_code == ExitCode::Done);
  }
  SECTION("the disk fails") {
    bench.published(100, Error{ErrorCode::FailedPrecondition, "no space", "disk", "", "", ""});
    REQUIRE(bench.result);
    CHECK(bench.events_of("checkpoint_failed").size() == 1);
  }
}

TEST_CASE("a request to stop saves the last step, and says how to go on", "[coordinator]") {
  Bench bench(2, 30, true);
  bench.train(2);
  bench.stop(15);
  REQUIRE(bench.sent_to(10, control::AgentCommand::kSave).size() == 1);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  CHECK(bench.sent_to(11, control::AgentCommand::kSave).empty());  // rank 0 tells the others
  for (int rank = 0; rank < 4; ++rank) {
    bench.step(10 + rank / 2, rank, 7);
    bench.step(10 + rank / 2, rank, 8);
    bench.saved(10 + rank / 2, rank, 8);
    bench.finished(10 + rank / 2, rank);
  }
  CHECK(bench.rows.size() == 2);
  bench.ended(10);
  bench.ended(11);
  bench.published(8);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Stopped);
  CHECK(bench.result->error->message == "stopped by SIGTERM after step 8, which is saved");
  CHECK(bench.result->error->hint == "go on");
}

TEST_CASE("the same notice to several nodes is one request to save and stop", "[coordinator]") {
  Bench bench(2, 30, true);
  bench.train(2);
  for (const int agent : {11, 10}) {
    control::AgentReport report;
    report.set_stop_signal(10);
    bench.report(agent, report);
  }
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).size() == 1);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).empty());
  for (int rank = 0; rank < 4; ++rank) {
    bench.step(10 + rank / 2, rank, 7);
    bench.saved(10 + rank / 2, rank, 7);
    bench.finished(10 + rank / 2, rank);
  }
  bench.ended(10);
  bench.ended(11);
  bench.published(7);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Stopped);
  CHECK(bench.result->error->message == "stopped by SIGUSR1 after step 7, which is saved");
}

TEST_CASE("a dead rank ends its generation, and the next one goes on from the newest checkpoint", "[coordinator]") {
  Bench bench(2, 30, true, 5, 3);
  bench.train(2);
  for (int rank = 0; rank < 4; ++rank)
    for (std::int64_t step = 1; step <= 7; ++step) bench.step(10 + rank / 2, rank, step);
  bench.exit(11, 3, "signal 9", false);
  CHECK(bench.events_of("worker_failed").size() == 1);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
  bench.exit(10, 0, "signal 9", false);  // by that
  bench.ended(10);
  CHECK_FALSE(bench.looked_for_checkpoint);
  bench.ended(11);
  bench.tick(0.25);
  bench.recover("folder", 5);
  REQUIRE(bench.sent_to(10, control::AgentCommand::kStart).size() == 3);  // measuring, and two generations
  const control::Work work = bench.sent_to(10, control::AgentCommand::kStart).back().start().work();
  CHECK(work.generation() == 2);
  CHECK(work.checkpoint().from() == "folder");
  CHECK(work.plan_json() == "{}");
  CHECK(bench.sent_to(11, control::AgentCommand::kStart).back().start().ranks_size() == 2);
  bench.generation = 2;
  for (std::int64_t step = 6; step <= 8; ++step) {
    CHECK(bench.events_of("recovered").empty());
    bench.clock.advance(Seconds(0.5));
    for (int rank = 0; rank < 4; ++rank) bench.step(10 + rank / 2, rank, step);
  }
  REQUIRE(bench.events_of("recovered").size() == 1);
  CHECK(bench.events_of("recovered")[0]["seconds"].number() == Approx(1.75));
  CHECK(bench.events_of("recovered")[0]["steps_lost"] == Json(2));
  CHECK(bench.rows.back().generation == 2);
  CHECK(bench.events_of("worker_failed").size() == 1);
  CHECK_FALSE(bench.result);
}

TEST_CASE("a checkpoint that is damaged after it was looked at is looked at again, a mistake ends the run",
          "[coordinator]") {
  const ErrorCode said = GENERATE(ErrorCode::DataLoss, ErrorCode::InvalidArgument);
  const bool damaged = said == ErrorCode::DataLoss;
  Bench bench(2, 30, true, 10, 3);
  bench.train(2);
  for (int rank = 0; rank < 4; ++rank) bench.step(10 + rank / 2, rank, 1);
  bench.fail_and_end(2, 3);
  bench.recover("step_1", 1);
  bench.generation = 2;
  bench.tick(1);
  bench.exit(10, 1, "exit 65", false, false, said);
  bench.ended(10);
  bench.ended(11);
  CHECK(bench.looked_for_checkpoint == damaged);
  REQUIRE(bench.result.has_value() != damaged);
  if (!damaged) CHECK(bench.result->exit_code == ExitCode::BadInput);
}

TEST_CASE("a generation that failed waits for the checkpoint that is being published", "[coordinator]") {
  Bench bench(1, 30, true, 5, 3);
  bench.train(1);
  for (int rank : {0, 1}) {
    for (std::int64_t step = 1; step <= 6; ++step) bench.step(10, rank, step);
    bench.saved(10, rank, 5);
  }
  REQUIRE(bench.publications.size() == 1);
  bench.fail_and_end(1, 0);
  // Were it looked for now, the next generation would begin at an older one, and save step 5 again beside this.
  CHECK_FALSE(bench.looked_for_checkpoint);
  bench.tick(30);  // a slow disk
  CHECK_FALSE(bench.looked_for_checkpoint);
  SECTION("it is there") {
    bench.published(5);
    CHECK(bench.events_of("checkpoint_saved").size() == 1);
  }
  SECTION("the disk fails") {
    bench.published(5, Error{ErrorCode::FailedPrecondition, "no space", "disk", "", "", ""});
    CHECK(bench.events_of("checkpoint_failed").size() == 1);
  }
  CHECK(bench.looked_for_checkpoint);
  CHECK_FALSE(bench.result);
}

TEST_CASE("the same step failing three times alike is hopeless, with growing pauses between", "[coordinator]") {
  Bench bench(1, 30, true, 5, 10);
  bench.train(1);
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  bench.fail_and_end(1, 0);
  bench.recover("", 0);
  bench.generation = 2;
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  bench.fail_and_end(1, 1);
  bench.recover("", 0);
  CHECK(bench.sent_to(10, control::AgentCommand::kStart).size() == 3);
  bench.tick(0.9);
  CHECK(bench.sent_to(10, control::AgentCommand::kStart).size() == 3);
  bench.tick(0.2);
  CHECK(bench.sent_to(10, control::AgentCommand::kStart).size() == 4);
  bench.generation = 3;
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  bench.fail_and_end(1, 0);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Hopeless);
  CHECK(bench.result->error->hint == "step 2 failed 3 times like this: mend the cause, then go on");
}

TEST_CASE("restarts are bounded within an hour, and none follows a lost node or a mistake", "[coordinator]") {
  Bench bench(1, 30, true, 5, 1);
  bench.train(1);
  bench.fail_and_end(1, 0);
  bench.recover("", 0);
  bench.generation = 2;
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  SECTION("the second one in an hour") {
    bench.tick(3500);
    bench.fail_and_end(1, 0);
    REQUIRE(bench.result);
    CHECK(bench.result->exit_code == ExitCode::Failed);
  }
  SECTION("one after it") {
    bench.tick(3700);
    bench.fail_and_end(1, 0);
    CHECK(bench.looked_for_checkpoint);
  }
  SECTION("a lost node") {
    bench.tick(3700);
    bench.gone(10);
    REQUIRE(bench.result);
  }
  SECTION("a mistake in the user's files") {
    bench.tick(3700);
    bench.exit(10, 0, "exit 65", false, false, ErrorCode::InvalidArgument);
    bench.ended(10);
    REQUIRE(bench.result);
    CHECK(bench.result->exit_code == ExitCode::BadInput);
  }
}

TEST_CASE("without an interval of the job, checkpoints come by what they cost", "[coordinator]") {
  Bench bench(1, 30, true);
  bench.train(1);
  bench.tick(59);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).empty());
  bench.tick(2);
  REQUIRE(bench.sent_to(10, control::AgentCommand::kSave).size() == 1);
  CHECK_FALSE(bench.sent_to(10, control::AgentCommand::kSave)[0].save().stop());
  bench.saved(10, 0, 3, 0.5);
  bench.saved(10, 1, 3, 0.25);
  bench.published(3);
  // Young: sqrt(2 x 0.5 x (21600 + 61)) = 147.2 s.
  bench.tick(147);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).size() == 1);
  bench.tick(1);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).size() == 2);
  // One that could not be written is not the last.
  bench.saved(10, 0, 4, 0.5, "no space");
  bench.saved(10, 1, 4);
  bench.tick(148);
  CHECK(bench.sent_to(10, control::AgentCommand::kSave).size() == 3);
}

TEST_CASE("a report of an older generation that comes late counts for nothing", "[coordinator]") {
  Bench bench(1, 30, true, 5, 3);
  bench.train(1);
  bench.fail_and_end(1, 0);
  bench.recover("", 0);  // generation 2 begins
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  CHECK(bench.rows.empty());
  for (int rank : {0, 1}) bench.saved(10, rank, 1);
  CHECK(bench.publications.empty());
  bench.generation = 2;
  for (int rank : {0, 1}) bench.step(10, rank, 1);
  REQUIRE(bench.rows.size() == 1);
  CHECK(bench.rows[0].generation == 2);
}
