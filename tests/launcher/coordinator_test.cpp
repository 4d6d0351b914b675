#include "launcher/control/coordinator.h"

#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// A coordinator with agents that answer as told; keeps what was decided.
class Bench {
 public:
  explicit Bench(int num_nodes, double shutdown_timeout = 30, bool saves = false, std::int64_t save_every = 0,
                 int max_restarts = 0)
      : core_(settings(num_nodes, shutdown_timeout, saves, save_every, max_restarts)) {}

  void join(int agent, int num_devices, int node_rank = -1) {
    control::AgentReport report;
    auto& hello = *report.mutable_hello();
    hello.set_node_rank(node_rank);
    hello.set_host("host" + std::to_string(agent));
    hello.set_cores(2);
    hello.set_memory_bytes(1 << 30);
    for (int i = 0; i < num_devices; ++i) {
      auto& device = *hello.add_devices();
      device.set_kind("cpu");
      device.set_cores(1.0);
      device.set_name("model");
      device.set_memory_bytes(1 << 29);
    }
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void worker(int agent, int rank, const control::WorkerReport& worker_report) {
    control::AgentReport report;
    report.mutable_worker()->set_rank(rank);
    *report.mutable_worker()->mutable_report() = worker_report;
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void measured(int agent, int rank) {
    control::WorkerReport report;
    report.mutable_measured()->set_memory_bytes_per_second(1);
    worker(agent, rank, report);
    finished(agent, rank);
  }
  void finished(int agent, int rank) {
    control::WorkerReport report;
    report.mutable_finished();
    worker(agent, rank, report);
  }
  void step(int agent, int rank, std::int64_t number, double seconds = 0.01) {
    control::WorkerReport report;
    report.mutable_step()->set_step(number);
    report.mutable_step()->set_loss(2.5);
    report.mutable_step()->set_step_seconds(seconds);
    report.mutable_step()->set_bubble_fraction(0.1 * (rank + 1));
    report.mutable_step()->set_peak_memory_bytes(100 * (rank + 1));
    worker(agent, rank, report);
  }
  void saved(int agent, int rank, std::int64_t step, double copy_seconds = 0.5, const std::string& error = "") {
    control::WorkerReport report;
    control::ShardSaved& saved = *report.mutable_saved();
    saved.set_step(step);
    saved.set_next_sample(8 * step);
    saved.set_copy_seconds(copy_seconds);
    saved.set_write_seconds(4);
    const checkpoint::Shard shard{
        "rank_" + std::to_string(rank), Bytes(1), "sum", {checkpoint::whole_piece("p" + std::to_string(rank), {2})}};
    if (error.empty())
      saved.set_shard_json(to_text(checkpoint::to_json(shard)));
    else
      saved.set_error_json(proto::error_to_text({ErrorCode::FailedPrecondition, error, "disk", "", "", ""}));
    worker(agent, rank, report);
  }
  void published(std::int64_t step, std::optional<Error> error = {}) {
    take(core_.checkpoint_published(step, std::move(error), clock.now()));
  }
  void recover(const std::string& folder, std::int64_t step) {
    REQUIRE(looked_for_checkpoint);
    looked_for_checkpoint = false;
    take(core_.recovery_found({folder, step, {}}, clock.now()));
  }
  /// A rank dies, and its agents let the generation go.
  void fail_and_end(int num_nodes, int rank, const std::string& cause = "signal 9") {
    exit(10 + rank / 2, rank, cause, false);
    for (int n = 0; n < num_nodes; ++n) ended(10 + n);
  }
  void failure_report(int agent, int rank, ErrorCode code, bool peer_lost) {
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(
        proto::error_to_text({code, "rank " + std::to_string(rank) + " says", "", "", "", ""}));
    report.mutable_failure()->set_peer_lost(peer_lost);
    worker(agent, rank, report);
  }
  void exit(int agent, int rank, const std::string& cause, bool clean, bool peer_lost = false,
            ErrorCode said = ErrorCode::Unknown) {
    control::AgentReport report;
    auto& exit = *report.mutable_exit();
    exit.set_generation(generation);
    exit.set_rank(rank);
    exit.set_cause(cause);
    exit.set_clean(clean);
    exit.set_peer_lost(peer_lost);
    if (said != ErrorCode::Unknown)
      exit.set_error_json(proto::error_to_text({said, "rank " + std::to_string(rank) + " says", "", "", "", ""}));
    exit.set_evidence("last words of " + std::to_string(rank));
    exit.set_log("logs/" + std::to_string(rank) + "/stderr");
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void ended(int agent) {
    control::AgentReport report;
    report.mutable_ended()->set_generation(generation);
    take(core_.agent_report(agent, report.SerializeAsString(), clock.now()));
  }
  void gone(int agent) { take(core_.agent_gone(agent, "its agent died", clock.now())); }
  void tick(double seconds) {
    clock.advance(Seconds(seconds));
    take(core_.tick(clock.now()));
  }
  void stop(int signal) { take(core_.stop_requested(signal, clock.now())); }

  /// Agents 10, 11, ... with two devices each, measured, and a plan over all of them.
  void train(int num_nodes) {
    for (int n = 0; n < num_nodes; ++n) join(10 + n, 2);
    for (int r = 0; r < 2 * num_nodes; ++r) measured(10 + r / 2, r);
    for (int n = 0; n < num_nodes; ++n) ended(10 + n);
    REQUIRE(asked_for_plan);
    ChosenPlan plan;
    plan.plan_json = "{}";
    plan.steps = 100;
    plan.ranks = core_.measurements().ranks;
    generation = 1;
    take(core_.plan_chosen(plan, clock.now()));
  }

  [[nodiscard]] std::vector<control::AgentCommand> sent_to(int agent, control::AgentCommand::KindCase kind) const {
    std::vector<control::AgentCommand> found;
    for (const auto& [to, command] : commands) {
      if (to == agent && command.kind_case() == kind) found.push_back(command);
    }
    return found;
  }
  [[nodiscard]] std::vector<Json> events_of(const std::string& type) const {
    std::vector<Json> found;
    for (const Json& event : events) {
      if (event["type"].string() == type) found.push_back(event);
    }
    return found;
  }

  ManualClock clock;
  int generation = 0;
  bool asked_for_plan = false, looked_for_checkpoint = false;
  std::vector<std::pair<int, control::AgentCommand>> commands;
  std::vector<Json> events;
  std::vector<StepRow> rows;
  std::vector<PublishCheckpoint> publications;
  std::optional<RunEnded> result;
  Coordinator& core() { return core_; }

 private:
  static CoordinatorSettings settings(int num_nodes, double shutdown_timeout, bool saves, std::int64_t save_every,
                                      int max_restarts) {
    CoordinatorSettings made;
    made.num_nodes = num_nodes;
    made.run_id = "run";
    made.shutdown_timeout_seconds = shutdown_timeout;
    made.saves = saves;
    made.save_every = save_every;
    made.max_restarts = max_restarts;
    made.resume_hint = "go on";
    return made;
  }
  void take(std::vector<Decision> decisions) {
    for (Decision& decision : decisions) {
      if (auto* send = std::get_if<SendCommand>(&decision)) {
        control::AgentCommand command;
        REQUIRE(command.ParseFromString(send->body));
        commands.emplace_back(send->agent, command);
      }
      if (std::holds_alternative<ChoosePlan>(decision)) asked_for_plan = true;
      if (std::holds_alternative<FindCheckpoint>(decision)) looked_for_checkpoint = true;
      if (auto* event = std::get_if<RecordEvent>(&decision)) events.push_back(event->event);
      if (auto* row = std::get_if<RecordStep>(&decision)) rows.push_back(row->row);
      if (auto* publication = std::get_if<PublishCheckpoint>(&decision)) publications.push_back(*publication);
      if (auto* ended = std::get_if<RunEnded>(&decision)) result = *ended;
    }
  }

  Coordinator core_;
};

}  // namespace

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

TEST_CASE("a checkpoint is published when every rank's shard is there", "[coordinator]") {
  Bench bench(1, 30, true, 5);
  bench.train(1);
  bench.saved(10, 1, 5);
  CHECK(bench.publications.empty());
  bench.saved(10, 0, 5);
  REQUIRE(bench.publications.size() == 1);
  CHECK(bench.publications[0].progress.step == 5);
  CHECK(bench.publications[0].progress.next_sample == 40);
  REQUIRE(bench.publications[0].shards.size() == 2);
  CHECK(bench.publications[0].shards[1].file == "rank_1");
  CHECK(bench.events_of("checkpoint_saved").empty());
  bench.published(5);
  REQUIRE(bench.events_of("checkpoint_saved").size() == 1);
  CHECK(bench.events_of("checkpoint_saved")[0]["step"] == Json(5));
  // One that a rank could not write is told and costs nothing more.
  bench.saved(10, 0, 10, 0.5, "no space");
  bench.saved(10, 1, 10);
  CHECK(bench.publications.size() == 1);
  REQUIRE(bench.events_of("checkpoint_failed").size() == 1);
  CHECK(bench.events_of("checkpoint_failed")[0]["cause"] == Json("no space"));
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
