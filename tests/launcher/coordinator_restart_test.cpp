// A real coordinator that is killed, and one that cannot be made anew: what the run costs, and that no process remains.
#include "tests/launcher/process_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("kill -9 of the coordinator costs no step: they go on without it, and it learns of them", "[process]") {
  Gate gate("coxswain-gate");
  Scene scene(gate.fake());
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  REQUIRE(pids.size() == 5);
  REQUIRE(::kill(scene.find(pids, "coordinator"), SIGKILL) == 0);
  gate.open();
  CHECK(scene.wait(launch) == 0);
  INFO(scene.err());
  scene.none_remains(pids);
  scene.nothing_in_temporary_folder();
  const auto metrics = read_lines(scene.run() / "metrics.jsonl");
  REQUIRE(metrics.size() == 20);
  for (std::size_t i = 0; i < metrics.size(); ++i)
    CHECK(metrics[i]["step"].integer() == static_cast<std::int64_t>(i) + 1);
  for (const char* type : {"cluster_probed", "plan_chosen", "generation_started", "coordinator_restarted",
                           "node_joined", "job_finished"}) {
    INFO(type);
    CHECK(scene.events(type).size() == 1);
  }
  CHECK(scene.out().find("done: 20 steps") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(scene.run() / "coordinator.db"));
}

TEST_CASE("in a long run finished steps leave the journal, and a restart still repeats and loses none", "[process]") {
  Gate gate("coxswain-gate");
  Scene scene(gate.fake("6000"), 9000);  // all at once; more would be more than a connection of fake_worker holds
  const int launch = scene.start();
  scene.await([&] { return count_lines(scene.run() / "metrics.jsonl") >= 6000; });
  for (const std::size_t restarts : {1, 2}) {
    REQUIRE(::kill(scene.find(scene.everybody(launch), "coordinator"), SIGKILL) == 0);
    scene.await([&] { return scene.events("coordinator_restarted").size() == restarts; });
  }
  gate.open();
  INFO(scene.err());
  CHECK(scene.wait(launch) == 0);
  const auto metrics = read_lines(scene.run() / "metrics.jsonl");
  REQUIRE(metrics.size() == 9000);
  bool in_order = true;
  for (std::size_t i = 0; i < metrics.size(); ++i)
    in_order = in_order && metrics[i]["step"].integer() == static_cast<std::int64_t>(i) + 1;
  CHECK(in_order);
  CHECK(scene.events("generation_started").size() == 1);
  // What the outcome says is of all steps, of those too that no coordinator but the first one knew.
  CHECK(scene.out().find("done: 9000 steps, loss 0.0011") != std::string::npos);
  CHECK(scene.out().find("step: median 2.0 ms") != std::string::npos);
  CHECK(scene.events("goodput").size() == 1);
}

TEST_CASE("a coordinator that was restarted knows the run: it names who fails, and stops when asked", "[process]") {
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  const int first = scene.find(pids, "coordinator");
  REQUIRE(::kill(first, SIGKILL) == 0);
  SECTION("a rank dies while it is away") {
    REQUIRE(::kill(scene.find(pids, "fake_worker"), SIGKILL) == 0);
    CHECK(scene.wait(launch) == 1);
    INFO(scene.err());
    REQUIRE(scene.events("worker_failed").size() == 1);
    CHECK(scene.events("worker_failed")[0]["cause"].string() == "signal 9");
  }
  SECTION("its second life ends too, and then a rank's") {
    int second = -1;
    scene.await([&] {
      second = scene.find(scene.everybody(launch), "coordinator");
      return second > 0 && second != first && scene.events("coordinator_restarted").size() == 1;
    });
    REQUIRE(::kill(second, SIGKILL) == 0);
    scene.await([&] { return scene.events("coordinator_restarted").size() == 2; });
    REQUIRE(::kill(scene.find(pids, "fake_worker"), SIGKILL) == 0);
    CHECK(scene.wait(launch) == 1);
    CHECK(scene.events("worker_failed").size() == 1);
    CHECK(read_lines(scene.run() / "metrics.jsonl").size() == 3);
  }
  SECTION("it is asked to end while it is away") {
    REQUIRE(::kill(launch, SIGINT) == 0);
    REQUIRE(::kill(launch, SIGINT) == 0);
    CHECK(scene.wait(launch) == 128 + SIGINT);
    CHECK(scene.err().find("stopped by SIGINT") != std::string::npos);
  }
  SECTION("the agent dies while it is away") {
    REQUIRE(::kill(scene.find(pids, "local-agent"), SIGKILL) == 0);
    CHECK(scene.wait(launch) == 1);
  }
  scene.none_remains(pids);
}

TEST_CASE("kill -9 of the coordinator while it measures and plans costs nothing either", "[process]") {
  Scene scene;
  const int launch = scene.start();
  int killed = 0, last = -1;
  // As soon as each is there, before or after it listens; the third is left alone.
  scene.await([&] {
    const int pid = scene.find(scene.everybody(launch), "coordinator");
    if (pid > 0 && pid != last && killed < 2 && std::filesystem::exists(scene.run() / "coordinator.db")) {
      last = pid;
      ++killed;
      ::kill(pid, SIGKILL);
    }
    return scene.ended.contains(launch);
  });
  CHECK(killed == 2);
  INFO(scene.err());
  CHECK(scene.ended[launch] == 0);
  CHECK(read_lines(scene.run() / "metrics.jsonl").size() == 20);
}

TEST_CASE("a coordinator that cannot be restored ends the run and leaves nobody behind", "[process]") {
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  const int coordinator = scene.find(pids, "coordinator");
  REQUIRE(::kill(coordinator, SIGSTOP) == 0);  // so that it does not write meanwhile
  for (const char* suffix : {"-wal", "-shm"})
    std::filesystem::remove((scene.run() / "coordinator.db").string() + suffix);
  REQUIRE(write_file(scene.run() / "coordinator.db", std::string(8192, 'x')));
  REQUIRE(::kill(coordinator, SIGKILL) == 0);
  CHECK(scene.wait(launch) == 1);
  scene.none_remains(pids);
  INFO(scene.err());
  CHECK(scene.err().find("journal is damaged") != std::string::npos);
  CHECK(scene.err().find("--resume") != std::string::npos);
}
