// Membership, measuring, planning, training and its end; which failure is the cause.
#include "tests/launcher/coordinator_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a run goes from joining to measuring, planning, training and its end", "[coordinator]") {
  Bench bench(2);
  bench.join(7, 2, 1);
  CHECK(bench.commands.empty());
  bench.join(9, 1, 0);
  // Node 0 is agent 9 because it asked for that; its one device is rank 0.
  const auto start9 = bench.sent_to(9, control::AgentCommand::kStart);
  const auto start7 = bench.sent_to(7, control::AgentCommand::kStart);
  REQUIRE(start9.size() == 1);
  REQUIRE(start7.size() == 1);
  REQUIRE(start9[0].start().ranks_size() == 1);
  CHECK(start9[0].start().ranks(0).rank() == 0);
  CHECK(start7[0].start().ranks(0).rank() == 1);
  CHECK(start7[0].start().ranks(1).rank() == 2);
  CHECK(start7[0].start().work().world_size() == 3);
  CHECK(start7[0].start().work().generation() == 0);

  bench.measured(9, 0);
  bench.measured(7, 1);
  bench.measured(7, 2);
  bench.ended(9);
  CHECK_FALSE(bench.asked_for_plan);
  bench.ended(7);
  CHECK(bench.asked_for_plan);

  ChosenPlan plan;
  plan.plan_json = "{\"a\":1}";
  plan.steps = 1;
  plan.ranks = {bench.core().measurements().ranks[2], bench.core().measurements().ranks[0]};
  for (const auto& decision : bench.core().plan_chosen(plan, bench.clock.now())) {
    if (const auto* send = std::get_if<SendCommand>(&decision)) {
      control::AgentCommand command;
      REQUIRE(command.ParseFromString(send->body));
      bench.commands.emplace_back(send->agent, command);
    }
  }
  bench.generation = 1;
  const auto second = bench.sent_to(7, control::AgentCommand::kStart);
  REQUIRE(second.size() == 2);
  CHECK(second[1].start().work().plan_json() == "{\"a\":1}");
  CHECK(second[1].start().work().generation() == 1);
  CHECK(second[1].start().ranks(0).rank() == 0);
  CHECK(second[1].start().ranks(0).local_device() == 1);

  // Addresses go round once every rank is ready.
  control::WorkerReport ready;
  ready.set_ready("b");
  bench.worker(9, 1, ready);
  CHECK(bench.sent_to(7, control::AgentCommand::kAddresses).empty());
  ready.set_ready("a");
  bench.worker(7, 0, ready);
  const auto addresses = bench.sent_to(9, control::AgentCommand::kAddresses);
  REQUIRE(addresses.size() == 1);
  CHECK(addresses[0].addresses().addresses(0) == "a");
  CHECK(addresses[0].addresses().addresses(1) == "b");

  // A step is one row when every rank has told it: slowest time, mean bubble, memory by rank.
  bench.step(9, 1, 1, 0.5);
  CHECK(bench.rows.empty());
  bench.step(7, 0, 1, 0.25);
  REQUIRE(bench.rows.size() == 1);
  CHECK(bench.rows[0].step_seconds == 0.5);
  CHECK(bench.rows[0].bubble_fraction == Approx(0.15));
  CHECK(bench.rows[0].peak_memory_bytes == std::vector<std::int64_t>{100, 200});

  bench.finished(9, 1);
  bench.finished(7, 0);
  bench.exit(9, 1, "exit 0", true);
  bench.exit(7, 0, "exit 0", true);
  bench.ended(9);
  CHECK_FALSE(bench.result);
  bench.ended(7);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Done);
  CHECK_FALSE(bench.result->error);
  CHECK(bench.sent_to(7, control::AgentCommand::kOver).size() == 1);
  REQUIRE(bench.events_of("job_finished").size() == 1);
  CHECK(bench.events_of("job_finished")[0]["steps"].integer() == 1);
}

TEST_CASE("a killed rank is named although its peer spoke first", "[coordinator]") {
  Bench bench(2);
  bench.train(2);
  bench.failure_report(10, 0, ErrorCode::Unavailable, true);
  bench.exit(10, 0, "exit 1", false, true, ErrorCode::Unavailable);
  CHECK_FALSE(bench.result);
  CHECK(bench.sent_to(11, control::AgentCommand::kAbort).size() == 1);
  bench.clock.advance(Seconds(0.25));
  bench.exit(11, 3, "signal 9", false);
  CHECK(bench.sent_to(11, control::AgentCommand::kStop).size() == 1);
  bench.ended(10);
  bench.ended(11);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Failed);
  REQUIRE(bench.result->error);
  CHECK(bench.result->error->message == "rank 3 on node 1 (host11) failed: signal 9 (SIGKILL)");
  CHECK(bench.result->error->path == "rank 3, node 1 (host11), generation 1, after step 0");
  CHECK(bench.result->error->got == "last lines of logs/3/stderr:\nlast words of 3");
  const auto failed = bench.events_of("worker_failed");
  REQUIRE(failed.size() == 1);
  CHECK(failed[0]["rank"].integer() == 3);
  CHECK(failed[0]["node"].integer() == 1);
  CHECK(failed[0]["cause"].string() == "signal 9");
  CHECK(failed[0]["suspected_seconds"].number() == 0.25);
  CHECK(failed[0]["evidence"].string() == "last words of 3");
  CHECK(failed[0]["log"].string() == "logs/3/stderr");
}

TEST_CASE("a compute action may take ten times its prediction, and half a minute", "[coordinator]") {
  const auto [longest, limit] = GENERATE(table<double, double>({{0.1, 30.0}, {7.0, 70.0}}));
  Bench bench(1);
  bench.longest_action = longest;
  bench.train(1);
  const auto starts = bench.sent_to(10, control::AgentCommand::kStart);
  REQUIRE(starts.size() == 2);
  CHECK(starts[0].start().work().action_timeout_seconds() == 0);  // measuring is not watched
  CHECK(starts[1].start().work().action_timeout_seconds() == limit);
}

TEST_CASE("a step that is long by its plan is waited for longer than half an hour", "[coordinator]") {
  const auto [step, stall, limit] =
      GENERATE(table<double, double, double>({{1, 30, 1800}, {100, 1000, 2000}, {2000, 20000, 40000}}));
  Bench bench(1);
  bench.step_seconds = step;
  bench.train(1);
  const auto starts = bench.sent_to(10, control::AgentCommand::kStart);
  REQUIRE(starts.size() == 2);
  CHECK(starts[1].start().work().stall_timeout_seconds() == stall);
  CHECK(starts[1].start().work().step_timeout_seconds() == limit);
}

TEST_CASE("ranks that all wait for each other are a failure, one that goes on makes none", "[coordinator]") {
  Bench bench(2);
  bench.train(2);
  const auto stalled = [&](int agent, int rank, const std::string& pending) {
    control::WorkerReport report;
    report.set_stalled(pending);
    bench.worker(agent, rank, report);
  };
  bench.step(10, 0, 1);
  for (const int rank : {0, 1, 2}) stalled(10 + rank / 2, rank, "F1[0,2) not started");
  stalled(10, 1, "");
  stalled(11, 3, "REDUCE_NORM with group 0");
  CHECK(bench.events_of("worker_failed").empty());
  stalled(10, 1, "RECV_ACT1 with group 2, peers 0 of it");
  const auto failed = bench.events_of("worker_failed");
  REQUIRE(failed.size() == 1);
  const Json& event = failed[0];
  CHECK(event["cause"] == Json("every rank waits for another"));
  CHECK(event["evidence"].string().find("rank 3: REDUCE_NORM with group 0") != std::string::npos);
}

TEST_CASE("a lost peer without a cause is told within 3 s", "[coordinator]") {
  Bench bench(1);
  bench.train(1);
  bench.exit(10, 1, "exit 1", false, true, ErrorCode::Unavailable);
  bench.tick(1.9);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).empty());
  bench.tick(0.3);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
  // The agent does not answer: the run ends all the same.
  bench.tick(0.7);
  REQUIRE(bench.result);
  CHECK(bench.result->error->message == "rank 1 on node 0 (host10) failed: exit 1");
}

TEST_CASE("the rank that failed by itself first is the cause, whichever exit comes first", "[coordinator]") {
  Bench bench(1);
  bench.train(1);
  bench.failure_report(10, 1, ErrorCode::Internal, false);
  bench.exit(10, 0, "signal 6", false);
  bench.ended(10);
  REQUIRE(bench.result);
  CHECK(bench.result->error->message == "rank 1 on node 0 (host10) failed: rank 1 says");
  CHECK(bench.result->exit_code == ExitCode::Hopeless);
}

TEST_CASE("what a rank said of itself is the cause, not the exit code that followed", "[coordinator]") {
  Bench bench(1);
  bench.train(1);
  bench.failure_report(10, 1, ErrorCode::Internal, false);
  bench.exit(10, 1, "exit 93", false, false, ErrorCode::Internal);
  const auto failed = bench.events_of("worker_failed");
  REQUIRE(failed.size() == 1);
  CHECK(failed[0]["rank"] == Json(1));
  CHECK(failed[0]["cause"] == Json("rank 1 says"));
}

TEST_CASE("an agent that dies ends the run and names the node", "[coordinator]") {
  Bench bench(2);
  bench.train(2);
  bench.step(10, 0, 1);
  bench.step(10, 1, 1);
  bench.step(11, 2, 1);
  bench.step(11, 3, 1);
  bench.gone(11);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
  CHECK(bench.sent_to(11, control::AgentCommand::kStop).empty());
  bench.ended(10);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Failed);
  CHECK(bench.result->error->message == "node 1 (host11) is lost: its agent died");
  CHECK(bench.result->error->path == "rank 2, 3, node 1 (host11), generation 1, after step 1");
  REQUIRE(bench.events_of("node_lost").size() == 1);
  CHECK(bench.events_of("node_lost")[0]["node"].integer() == 1);
  CHECK(bench.events_of("node_lost")[0]["ranks"] == Json(JsonArray{2, 3}));
  CHECK(bench.events_of("worker_failed").empty());
}

TEST_CASE("a mistake in the user's files is told as such, with its exit code", "[coordinator]") {
  Bench bench(1);
  bench.join(10, 2);
  bench.exit(10, 0, "exit 65", false, false, ErrorCode::InvalidArgument);
  bench.ended(10);
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::BadInput);
  CHECK(bench.result->error->message == "rank 0 says");
}

TEST_CASE("no plan: the planner's error ends the run and idle agents are let go", "[coordinator]") {
  Bench bench(1);
  bench.join(10, 1);
  bench.measured(10, 0);
  bench.ended(10);
  for (const auto& decision :
       bench.core().plan_failed({ErrorCode::ResourceExhausted, "nothing fits", "", "", "", ""}, bench.clock.now())) {
    if (const auto* ended = std::get_if<RunEnded>(&decision)) bench.result = *ended;
  }
  REQUIRE(bench.result);
  CHECK(bench.result->exit_code == ExitCode::Infeasible);
  CHECK(bench.result->error->message == "nothing fits");
}

TEST_CASE("traced steps come with every rank's times in rank order", "[coordinator]") {
  Bench bench(1);
  bench.train(1);
  for (const int rank : {1, 0}) {
    control::WorkerReport report;
    report.mutable_step()->set_step(1);
    report.mutable_step()->set_step_seconds(0.5 + rank);
    auto& trace = *report.mutable_step()->mutable_trace();
    trace.set_begin_nanoseconds(100 + rank);
    trace.set_clock_offset_nanoseconds(10 * rank);
    trace.set_clock_error_nanoseconds(rank);
    trace.add_start_seconds(1 + rank);
    trace.add_end_seconds(2 + rank);
    bench.worker(10, rank, report);
  }
  bench.step(10, 0, 2);
  bench.step(10, 1, 2);
  REQUIRE(bench.rows.size() == 2);
  REQUIRE(bench.rows[0].traces.size() == 2);
  const RankTrace& second = bench.rows[0].traces[1];
  CHECK(second.begin_nanoseconds == 101);
  CHECK(second.clock_offset_nanoseconds == 10);
  CHECK(second.clock_error_nanoseconds == 1);
  CHECK(second.step_seconds == 1.5);
  CHECK(second.start == std::vector<double>{2});
  CHECK(second.end == std::vector<double>{3});
  CHECK(bench.rows[1].traces.empty());
}

TEST_CASE("a request to stop ends the run at the next whole step", "[coordinator]") {
  Bench bench(1);
  bench.train(1);
  bench.step(10, 0, 1);
  bench.step(10, 1, 1);
  bench.step(10, 0, 2);
  bench.stop(15);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).empty());
  bench.step(10, 1, 2);
  CHECK(bench.rows.size() == 2);
  CHECK(bench.sent_to(10, control::AgentCommand::kStop).size() == 1);
  bench.ended(10);
  REQUIRE(bench.result);
  CHECK(static_cast<int>(bench.result->exit_code) == 143);
  CHECK(bench.result->signal == 15);
  CHECK(bench.result->error->message == "stopped by SIGTERM after step 2");
}

TEST_CASE("a step that outlasts the shutdown timeout is given up, a second request is not waited for",
          "[coordinator]") {
  Bench slow(1, 5);
  slow.train(1);
  slow.stop(2);
  slow.tick(4.9);
  CHECK(slow.sent_to(10, control::AgentCommand::kStop).empty());
  slow.tick(0.2);
  CHECK(slow.sent_to(10, control::AgentCommand::kStop).size() == 1);

  Bench twice(1, 5);
  twice.train(1);
  twice.stop(2);
  twice.stop(2);
  CHECK(twice.sent_to(10, control::AgentCommand::kStop).size() == 1);
}

TEST_CASE("a third node, or a second one with the same rank, is sent away", "[coordinator]") {
  Bench bench(2);
  bench.join(10, 1, 0);
  bench.join(11, 1, 0);
  REQUIRE(bench.sent_to(11, control::AgentCommand::kOver).size() == 1);
  CHECK(bench.sent_to(11, control::AgentCommand::kOver)[0].over().exit_code() == 71);
  bench.join(12, 1, 1);
  bench.join(13, 1, -1);
  CHECK(bench.sent_to(13, control::AgentCommand::kOver).size() == 1);
  CHECK(bench.sent_to(12, control::AgentCommand::kStart).size() == 1);
}

TEST_CASE("an agent that leaves before the run began can come back", "[coordinator]") {
  Bench bench(2);
  bench.join(10, 1);
  bench.gone(10);
  CHECK_FALSE(bench.result);
  bench.join(11, 1);
  bench.join(12, 1);
  CHECK(bench.sent_to(11, control::AgentCommand::kStart).size() == 1);
  CHECK(bench.sent_to(12, control::AgentCommand::kStart).size() == 1);
}

TEST_CASE("a skipped step is an event that names who saw why, the loss before gradients", "[coordinator]") {
  Bench bench(2);
  bench.train(2);
  const auto step = [&](int rank, const std::string& not_finite) {
    control::WorkerReport report;
    report.mutable_step()->set_step(1);
    report.mutable_step()->set_skipped(true);
    report.mutable_step()->set_not_finite(not_finite);
    report.mutable_step()->set_loss_scale(65536);
    bench.worker(10 + rank / 2, rank, report);
  };
  step(0, "the gradients are");
  step(1, "");
  step(2, "the loss is");
  CHECK(bench.events_of("step_skipped").empty());
  step(3, "the loss is");
  const auto events = bench.events_of("step_skipped");
  REQUIRE(events.size() == 1);
  CHECK(events[0]["step"].integer() == 1);
  CHECK(events[0]["rank"].integer() == 2);
  CHECK(events[0]["cause"].string() == "the loss is not finite");
  CHECK(events[0]["loss_scale"].number() == 65536);
  REQUIRE(bench.rows.size() == 1);
  CHECK(bench.rows[0].skipped);
  CHECK(bench.rows[0].loss_scale == 65536);
}
