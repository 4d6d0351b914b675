#include "launcher/control/agent.h"

#include <csignal>
#include <fstream>
#include <map>
#include <set>

#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

class FakeSpawner final : public Spawner {
 public:
  Result<int> spawn(const SpawnRequest& request) override {
    if (refuse_after >= 0 && static_cast<int>(requests.size()) >= refuse_after)
      return Error{ErrorCode::FailedPrecondition, "no more processes", "", "", "", ""};
    requests.push_back(request);
    return 1000 + static_cast<int>(requests.size()) - 1;
  }
  void send_signal(int pid, int signal) override { signals.emplace_back(pid, signal); }
  std::optional<std::int64_t> stopped_at(int pid) const override {
    if (!stopped.contains(pid)) return std::nullopt;
    return works_between_looks ? ++ticks : ticks;
  }

  std::vector<SpawnRequest> requests;
  std::vector<std::pair<int, int>> signals;
  std::set<int> stopped;
  bool works_between_looks = false;
  mutable std::int64_t ticks = 7;
  int refuse_after = -1;
};

class Bench {
 public:
  Bench()
      : agent_(
            setup(), spawner, [this](const std::string& body, Haste haste) { take(body, haste); },
            [this](int rank, int pid, std::string body) {
              control::WorkerCommand command;
              command.ParseFromString(body);
              to_workers.emplace_back(rank, command);
              told_pids.push_back(pid);
            }) {}

  void start(int generation, const std::string& backend = "host") {
    control::AgentCommand command;
    auto& start = *command.mutable_start();
    start.mutable_work()->set_generation(generation);
    start.mutable_work()->set_backend(backend);
    start.mutable_work()->set_world_size(4);
    start.mutable_work()->set_run_id("run");
    start.set_master_addr("10.0.0.1");
    start.set_node_rank(1);
    start.set_num_nodes(2);
    (*start.mutable_environment())["FROM_JOB"] = "yes";
    for (int r : {2, 3}) {
      auto& placement = *start.add_ranks();
      placement.set_rank(r);
      placement.set_local_device(r - 2);
      placement.set_device_class("cpu-1.0");
    }
    send(command);
  }
  void send(const control::AgentCommand& command) { agent_.on_command(command.SerializeAsString(), clock.now()); }
  void stop(double grace, bool keeps = false) {
    control::AgentCommand command;
    command.mutable_stop()->set_grace_seconds(grace);
    command.mutable_stop()->set_keeps(keeps);
    send(command);
  }
  /// `step`: that it holds the state of; 0: of none.
  void parked(int rank, std::int64_t step = 0) {
    control::WorkerReport report;
    report.mutable_parked();
    if (step > 0) report.mutable_parked()->mutable_held()->mutable_state()->set_step(step);
    agent_.on_worker_report(rank, pids[rank], report.SerializeAsString(), Haste::AtOnce, clock.now());
  }
  void hello(int rank, int pid) {
    control::WorkerReport report;
    report.mutable_hello()->set_rank(rank);
    report.mutable_hello()->set_pid(pid);
    pids[rank] = pid;
    agent_.on_worker_report(rank, pid, report.SerializeAsString(), Haste::AtOnce, clock.now());
  }
  void step(int rank, Haste haste) {
    control::WorkerReport report;
    report.mutable_step()->set_step(1);
    agent_.on_worker_report(rank, pids[rank], report.SerializeAsString(), haste, clock.now());
  }
  void finished(int rank) {
    control::WorkerReport report;
    report.mutable_finished();
    agent_.on_worker_report(rank, pids[rank], report.SerializeAsString(), Haste::AtOnce, clock.now());
  }
  void failure(int rank, bool peer_lost) {
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(proto::error_to_text({ErrorCode::Unavailable, "x", "", "", "", ""}));
    report.mutable_failure()->set_peer_lost(peer_lost);
    agent_.on_worker_report(rank, pids[rank], report.SerializeAsString(), Haste::AtOnce, clock.now());
  }
  void exits(int pid, bool signalled, int number) { agent_.on_process_exit({pid, signalled, number}, clock.now()); }
  void tick(double seconds) {
    clock.advance(Seconds(seconds));
    agent_.on_tick(clock.now());
  }

  ManualClock clock;
  TempDir folder;
  FakeSpawner spawner;
  std::vector<control::WorkerExit> exit_reports;
  std::vector<std::string> errors;
  std::vector<std::pair<int, control::WorkerCommand>> to_workers;
  std::vector<int> told_pids;     // by to_workers
  std::vector<int> stop_signals;  // that it passed on
  std::map<int, int> pids;        // by rank, of the last hello
  std::vector<control::WorkerMessage> passed_on;
  std::vector<Haste> hastes;  // of all that it said
  int num_ended = 0, num_kept = 0;
  std::vector<std::pair<int, std::int64_t>> held;  // rank, step
  Agent& agent() { return agent_; }

 private:
  AgentSetup setup() {
    AgentSetup made;
    made.key = "secret";
    made.log_dir = folder / "logs";
    made.scratch_dir = folder / "scratch";
    std::filesystem::create_directories(made.scratch_dir);
    made.worker_program = "/bin/worker";
    made.worker_target = "unix:/x";
    made.local_addr = "10.0.0.2";
    made.node = "here";
    for (int i = 0; i < 2; ++i) {
      LocalDevice device;
      device.request.cores = 1;
      device.threads = 3;
      device.cpus = {i};
      made.devices.push_back(std::move(device));
    }
    return made;
  }
  void take(const std::string& body, Haste haste) {
    hastes.push_back(haste);
    control::AgentReport report;
    REQUIRE(report.ParseFromString(body));
    if (report.has_exit()) exit_reports.push_back(report.exit());
    if (report.has_worker()) passed_on.push_back(report.worker());
    if (report.has_ended()) {
      ++num_ended;
      num_kept = report.ended().kept();
      for (const auto& one : report.ended().held()) held.emplace_back(one.rank(), one.held().state().step());
    }
    if (!report.error_json().empty()) errors.push_back(report.error_json());
    if (report.kind_case() == control::AgentReport::kStopSignal) stop_signals.push_back(report.stop_signal());
  }
  Agent agent_;
};

}  // namespace

TEST_CASE("workers get torchrun's variables, the key by descriptor, their log files and CPUs", "[agent]") {
  Bench bench;
  bench.start(1);
  REQUIRE(bench.spawner.requests.size() == 2);
  const SpawnRequest& second = bench.spawner.requests[1];
  CHECK(second.environment.at("RANK") == "3");
  CHECK(second.environment.at("LOCAL_RANK") == "1");
  CHECK(second.environment.at("WORLD_SIZE") == "4");
  CHECK(second.environment.at("LOCAL_WORLD_SIZE") == "2");
  CHECK(second.environment.at("GROUP_RANK") == "1");
  CHECK(second.environment.at("MASTER_ADDR") == "10.0.0.1");
  CHECK(second.environment.at("OMP_NUM_THREADS") == "3");
  CHECK(second.environment.at("FROM_JOB") == "yes");
  CHECK(second.key == "secret");
  for (const auto& argument : second.arguments) CHECK(argument.find("secret") == std::string::npos);
  CHECK(second.stderr_file == bench.folder / "logs/generation_1/3/stderr");
  CHECK(second.cpus == std::vector<int>{1});
}

TEST_CASE("logs of measuring stay out of the run directory", "[agent]") {
  Bench bench;
  bench.start(0);
  CHECK(bench.spawner.requests[0].stdout_file == bench.folder / "scratch/logs/generation_0/2/stdout");
}

TEST_CASE("a hello is answered with the rank's assignment", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(3, 1001);
  REQUIRE(bench.to_workers.size() == 1);
  CHECK(bench.to_workers[0].first == 3);
  CHECK(bench.told_pids == std::vector<int>{1001});
  const auto& assignment = bench.to_workers[0].second.assignment();
  CHECK(assignment.rank() == 3);
  CHECK(assignment.threads() == 3);
  CHECK(assignment.local_addr() == "10.0.0.2");
  CHECK(assignment.device_class() == "cpu-1.0");
}

TEST_CASE("a worker's exit is told with its cause and the last lines of its stderr", "[agent]") {
  Bench bench;
  bench.start(1);
  std::filesystem::create_directories(bench.folder / "logs/generation_1/2");
  std::ofstream(bench.folder / "logs/generation_1/2/stderr") << "one\ntwo\n";
  bench.hello(2, 1000);
  bench.exits(1000, true, SIGSEGV);
  REQUIRE(bench.exit_reports.size() == 1);
  CHECK(bench.exit_reports[0].rank() == 2);
  CHECK(bench.exit_reports[0].cause() == "signal 11");
  CHECK_FALSE(bench.exit_reports[0].clean());
  CHECK(bench.exit_reports[0].evidence() == "one\ntwo");
  CHECK(bench.num_ended == 0);
  bench.exits(1001, false, 3);
  CHECK(bench.exit_reports[1].cause() == "exit 3");
  CHECK(bench.num_ended == 1);
}

TEST_CASE("an exit waits shortly for the last words that are still on their way", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.exits(1000, false, 1);
  CHECK(bench.exit_reports.empty());
  bench.failure(2, true);
  bench.agent().on_worker_gone(2, 1000, bench.clock.now());
  REQUIRE(bench.exit_reports.size() == 1);
  CHECK(bench.exit_reports[0].peer_lost());

  bench.hello(3, 1001);
  bench.exits(1001, false, 0);
  CHECK(bench.exit_reports.size() == 1);
  bench.tick(0.4);
  REQUIRE(bench.exit_reports.size() == 2);
  CHECK_FALSE(bench.exit_reports[1].clean());  // exit 0 without having finished
}

TEST_CASE("what a worker of an earlier generation still had in its stream is not passed on", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  for (const int pid : {1000, 1001}) bench.exits(pid, true, SIGKILL);
  CHECK(bench.num_ended == 1);
  bench.start(2);
  bench.failure(2, false);  // over the stream of 1000
  CHECK(bench.passed_on.empty());
  bench.hello(2, 1002);
  bench.failure(2, false);
  REQUIRE(bench.passed_on.size() == 1);
  CHECK(bench.passed_on[0].generation() == 2);
}

TEST_CASE("a finished worker that exits 0 is clean", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.finished(2);
  bench.agent().on_worker_gone(2, 1000, bench.clock.now());
  bench.exits(1000, false, 0);
  REQUIRE(bench.exit_reports.size() == 1);
  CHECK(bench.exit_reports[0].clean());
}

TEST_CASE("stop is SIGTERM, then SIGKILL after the grace; with no grace SIGKILL at once", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.stop(2);
  CHECK(bench.spawner.signals == std::vector<std::pair<int, int>>{{1000, SIGTERM}, {1001, SIGTERM}});
  bench.tick(1.9);
  CHECK(bench.spawner.signals.size() == 2);
  bench.tick(0.2);
  CHECK(bench.spawner.signals.back() == std::pair<int, int>{1001, SIGKILL});
  bench.exits(1000, true, SIGKILL);
  bench.exits(1001, true, SIGKILL);
  CHECK(bench.exit_reports.empty());  // by our own hand: no failures
  CHECK(bench.num_ended == 1);

  Bench now;
  now.start(1);
  now.stop(0);
  CHECK(now.spawner.signals == std::vector<std::pair<int, int>>{{1000, SIGKILL}, {1001, SIGKILL}});
}

TEST_CASE("a rank that lost its peer keeps its process for the next generation", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.hello(3, 1001);
  bench.exits(1000, true, SIGKILL);
  bench.to_workers.clear();
  const auto starts_again = [&] {
    bench.to_workers.clear();
    bench.start(2);
    REQUIRE(bench.spawner.requests.size() == 3);  // one new process, rank 2
    CHECK(bench.spawner.requests[2].environment.at("RANK") == "2");
    REQUIRE(bench.to_workers.size() == 1);
    CHECK(bench.to_workers[0].first == 3);
    const auto& assignment = bench.to_workers[0].second.assignment();
    CHECK(assignment.work().generation() == 2);
    CHECK(assignment.log_folder() == (bench.folder / "logs/generation_2/3").string());
    CHECK(bench.spawner.signals.empty());
    // It is watched as any other.
    bench.exits(1001, true, SIGSEGV);
    CHECK(bench.exit_reports.back().rank() == 3);
    CHECK(bench.exit_reports.back().cause() == "signal 11");
  };
  SECTION("it lets go when it is told to") {
    bench.stop(0, true);
    REQUIRE(bench.to_workers.size() == 1);  // not the one that is gone
    CHECK(bench.to_workers[0].second.has_abort());
    CHECK(bench.num_ended == 0);
    bench.parked(3);
    CHECK(bench.num_ended == 1);
    CHECK(bench.num_kept == 1);
    bench.tick(1);
    starts_again();
  }
  SECTION("it had let go before") {
    bench.parked(3, 7);
    CHECK(bench.num_ended == 0);
    bench.stop(0, true);
    CHECK(bench.num_ended == 1);
    CHECK(bench.held == std::vector<std::pair<int, std::int64_t>>{{3, 7}});
    CHECK(bench.passed_on.empty());
    starts_again();
  }
  SECTION("it does not let go in time") {
    bench.stop(0, true);
    bench.tick(0.9);
    CHECK(bench.spawner.signals.empty());
    bench.tick(0.2);
    CHECK(bench.spawner.signals.back() == std::pair<int, int>{1001, SIGKILL});
    bench.parked(3);  // too late: it is on its way out
    CHECK(bench.num_ended == 0);
    bench.exits(1001, true, SIGKILL);
    CHECK(bench.num_ended == 1);
    CHECK(bench.num_kept == 0);
    bench.start(2);
    CHECK(bench.spawner.requests.size() == 4);
  }
  SECTION("it dies while it waits") {
    bench.stop(0, true);
    bench.parked(3);
    CHECK(bench.held.empty());
    bench.exits(1001, true, SIGKILL);
    bench.start(2);
    CHECK(bench.spawner.requests.size() == 4);
  }
  SECTION("no other generation follows") {
    bench.parked(3);
    bench.stop(0);
    CHECK(bench.spawner.signals.back() == std::pair<int, int>{1001, SIGKILL});
    CHECK(bench.num_ended == 0);
    bench.exits(1001, true, SIGKILL);
    CHECK(bench.num_ended == 1);
    CHECK(bench.num_kept == 0);
  }
  SECTION("the run is over before the next one") {
    bench.stop(0, true);
    bench.parked(3);
    control::AgentCommand over;
    over.mutable_over()->set_exit_code(1);
    bench.send(over);
    CHECK(bench.spawner.signals == std::vector<std::pair<int, int>>{{1001, SIGKILL}});
    CHECK(bench.agent().over());
  }
}

TEST_CASE("a save that is asked for while ranks start reaches the first one when it is there", "[agent]") {
  Bench bench;
  bench.start(1);
  control::AgentCommand save;
  save.mutable_save()->set_stop(GENERATE(false, true));
  const bool stop = save.save().stop();
  bench.send(save);
  CHECK(bench.to_workers.empty());
  bench.hello(3, 1001);
  REQUIRE(bench.to_workers.size() == 1);
  CHECK(bench.to_workers[0].second.has_assignment());
  if (GENERATE(false, true)) {  // another that ends nothing takes nothing back
    save.mutable_save()->set_stop(false);
    bench.send(save);
  }
  bench.hello(2, 1000);
  REQUIRE(bench.to_workers.size() == 3);
  CHECK(bench.to_workers[1].first == 2);
  CHECK(bench.to_workers[1].second.has_assignment());
  CHECK(bench.to_workers[2].first == 2);
  CHECK(bench.to_workers[2].second.save().stop() == stop);
  bench.send(save);
  CHECK(bench.to_workers.size() == 4);  // at once from now on
}

TEST_CASE("a rank that is stopped for 3 s is ended and named, one that goes on is not", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.hello(3, 1001);
  bench.spawner.stopped = {1000, 1001};
  for (int i = 0; i < 20; ++i) bench.tick(0.1);
  bench.spawner.stopped = {1001};
  for (int i = 0; i < 4; ++i) bench.tick(0.1);
  CHECK(bench.spawner.signals.empty());
  for (int i = 0; i < 10; ++i) bench.tick(0.1);
  REQUIRE(bench.spawner.signals == std::vector<std::pair<int, int>>{{1001, SIGKILL}});
  bench.exits(1001, true, SIGKILL);
  REQUIRE(bench.exit_reports.size() == 1);
  CHECK(bench.exit_reports[0].rank() == 3);
  CHECK(bench.exit_reports[0].cause() == "stopped (SIGSTOP) for 3 s");
  CHECK_FALSE(bench.exit_reports[0].peer_lost());
}

TEST_CASE("a rank that is found stopped at every look but works between them goes on", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.hello(3, 1001);
  bench.spawner.stopped = {1001};
  bench.spawner.works_between_looks = true;
  for (int i = 0; i < 100; ++i) bench.tick(0.1);
  CHECK(bench.spawner.signals.empty());
  bench.spawner.works_between_looks = false;
  for (int i = 0; i < 34; ++i) bench.tick(0.1);
  CHECK(bench.spawner.signals == std::vector<std::pair<int, int>>{{1001, SIGKILL}});
}

TEST_CASE("an agent that stood still with its ranks ends none of them", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.tick(0.5);
  bench.spawner.stopped = {1000};
  bench.tick(3600);  // one look, whatever the clock says
  bench.tick(0.5);
  bench.spawner.stopped.clear();
  bench.tick(0.5);
  CHECK(bench.spawner.signals.empty());
}

TEST_CASE("a worker that cannot be started is told, and the others are ended", "[agent]") {
  Bench bench;
  bench.spawner.refuse_after = 1;
  bench.start(1);
  REQUIRE(bench.errors.size() == 1);
  CHECK(proto::error_from_text(bench.errors[0]).message == "no more processes");
  CHECK(bench.spawner.signals == std::vector<std::pair<int, int>>{{1000, SIGKILL}});
  bench.exits(1000, true, SIGKILL);
  CHECK(bench.num_ended == 1);
}

TEST_CASE("a lost coordinator ends workers and agent with exit 1", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.agent().on_coordinator_lost(bench.clock.now());
  CHECK_FALSE(bench.agent().over());
  CHECK(bench.spawner.signals.size() == 2);
  bench.exits(1000, true, SIGKILL);
  bench.exits(1001, true, SIGKILL);
  CHECK(bench.agent().over());
  CHECK(bench.agent().exit_code() == 1);
}

TEST_CASE("a signal to a node's agent asks for the run's end; a second one ends its ranks", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.agent().on_signal(SIGUSR1, bench.clock.now());
  CHECK(bench.stop_signals == std::vector<int>{SIGUSR1});
  CHECK(bench.spawner.signals.empty());
  CHECK_FALSE(bench.agent().over());
  SECTION("the coordinator ends the run") {
    for (const int rank : {2, 3}) bench.finished(rank);
    control::AgentCommand over;
    over.mutable_over()->set_exit_code(75);
    bench.send(over);
    for (const int pid : {1000, 1001}) bench.exits(pid, false, 0);
    CHECK(bench.agent().over());
    CHECK(bench.agent().exit_code() == 75);
  }
  SECTION("a second one") {
    bench.agent().on_signal(SIGTERM, bench.clock.now());
    CHECK(bench.stop_signals.size() == 1);
    CHECK(bench.spawner.signals.size() == 2);
    for (const int pid : {1000, 1001}) bench.exits(pid, true, SIGKILL);
    CHECK(bench.agent().over());
    CHECK(bench.agent().exit_code() == 128 + SIGTERM);
  }
}

TEST_CASE("under mpirun the rank whose stream ended first is the cause, with mpirun's code", "[agent]") {
  Bench bench;
  bench.start(1, "mpi");
  REQUIRE(bench.spawner.requests.size() == 1);
  const auto& arguments = bench.spawner.requests[0].arguments;
  CHECK(arguments[0] == "mpirun");
  CHECK(std::find(arguments.begin(), arguments.end(), "/bin/worker") != arguments.end());
  CHECK_FALSE(bench.spawner.requests[0].environment.contains("RANK"));
  bench.hello(2, 77);
  bench.hello(3, 78);
  bench.agent().on_worker_gone(3, 78, bench.clock.now());
  bench.agent().on_worker_gone(2, 77, bench.clock.now());
  bench.exits(1000, false, 137);
  REQUIRE(bench.exit_reports.size() == 2);
  CHECK(bench.exit_reports[0].rank() == 2);
  CHECK(bench.exit_reports[0].peer_lost());
  CHECK(bench.exit_reports[1].rank() == 3);
  CHECK_FALSE(bench.exit_reports[1].peer_lost());
  CHECK(bench.exit_reports[1].cause() == "signal 9");
  CHECK(bench.num_ended == 1);
}

TEST_CASE("an agent says which ranks it has and how far they are", "[agent]") {
  Bench bench;
  CHECK(prometheus_text(bench.agent().figures(), true).find("coxswain_agent_generation 0") != std::string::npos);
  bench.start(3);
  bench.hello(2, 1000);
  bench.hello(3, 1001);
  control::WorkerReport report;
  report.mutable_step()->set_step(17);
  report.mutable_step()->set_step_seconds(0.25);
  report.mutable_step()->set_peak_memory_bytes(4096);
  bench.agent().on_worker_report(2, 1000, report.SerializeAsString(), Haste::AtOnce, bench.clock.now());
  AgentFigures figures = bench.agent().figures();
  REQUIRE(figures.ranks.size() == 2);
  CHECK(figures.generation == 3);
  CHECK(figures.ranks[0].step == 17);
  CHECK(figures.ranks[1].step == 0);
  CHECK(figures.ranks[1].running);
  bench.exits(1001, true, SIGSEGV);
  figures = bench.agent().figures();
  CHECK(figures.failures == 1);
  CHECK_FALSE(figures.ranks[1].running);
  const std::string text = prometheus_text(figures, false);
  for (const char* line :
       {"coxswain_agent_connected 0", "coxswain_agent_generation 3", "coxswain_rank_step{rank=\"2\"} 17",
        "coxswain_rank_step_seconds{rank=\"2\"} 0.25", "coxswain_rank_running{rank=\"3\"} 0",
        "coxswain_rank_peak_memory_bytes{rank=\"2\"} 4096", "coxswain_agent_rank_failures_total 1"}) {
    INFO(text);
    CHECK(text.find(std::string(line) + "\n") != std::string::npos);
  }
  CHECK(text.find("coxswain_rank_step{rank=\"3\"}") == std::string::npos);  // it has told none
}

TEST_CASE("a report travels on with the haste that it came with, what the agent itself says at once", "[agent]") {
  Bench bench;
  bench.start(1);
  bench.hello(2, 1000);
  bench.step(2, Haste::WithNextBeat);
  bench.step(2, Haste::AtOnce);
  bench.exits(1000, true, 9);
  CHECK(bench.hastes == std::vector{Haste::WithNextBeat, Haste::AtOnce, Haste::AtOnce});
}

TEST_CASE("an agent is to be called when the first of its limits is over", "[agent]") {
  Bench bench;
  CHECK(bench.agent().next_tick() == TimePoint::max());
  bench.start(1);
  CHECK(bench.agent().next_tick() <= bench.clock.now());  // to look at stopped ranks
  bench.tick(0.1);
  const auto in = [&](double seconds) {
    ManualClock later;
    later.advance(Seconds(seconds));
    return later.now();
  };
  CHECK(bench.agent().next_tick() == in(0.6));
  bench.hello(2, 1000);
  bench.exits(1000, false, 3);  // its last words may follow for 0.3 s
  CHECK(bench.agent().next_tick() == in(0.4));
  bench.tick(0.3);
  CHECK(bench.exit_reports.size() == 1);
  CHECK(bench.agent().next_tick() == in(0.6));
  bench.stop(5);
  CHECK(bench.agent().next_tick() == in(5.4));
}
