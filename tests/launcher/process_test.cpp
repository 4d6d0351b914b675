// Real `launch` with a worker that speaks the protocol and fails on demand (fake_worker.cpp): faults, causes, exit
// codes, files, and that no process remains.
#include "tests/launcher/process_bench.h"

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("a run trains, leaves its files to the owner only, and exits 0", "[process]") {
  Scene scene;
  REQUIRE(scene.wait(scene.start()) == 0);
  for (const char* name : {"job.yaml", "cluster.json", "plan-1.json", "metrics.jsonl", "events.jsonl",
                           "logs/generation_1/0/stdout", "logs/generation_1/1/stderr"}) {
    INFO(name);
    CHECK(mode_of(scene.run() / name) == 0600);
  }
  CHECK(mode_of(scene.run()) == 0700);
  const std::string job = *read_file(scene.run() / "job.yaml");
  CHECK(job.find((scene.folder / "text.txt").string()) != std::string::npos);  // it can be run from anywhere
  CHECK(*read_file(scene.run() / "logs/generation_1/1/stdout") == "rank 1 of 2\n");
  const auto metrics = read_lines(scene.run() / "metrics.jsonl");
  REQUIRE(metrics.size() == 20);
  CHECK(metrics[3]["step"].integer() == 4);
  CHECK(metrics[3]["loss"].number() == 2.5);
  CHECK(metrics[3]["step_seconds"].number() == 0.002);
  CHECK(metrics[3]["predicted_step_seconds"].number() > 0);
  CHECK(metrics[3]["peak_memory_bytes"].array().size() == 2);
  for (const char* type : {"cluster_probed", "plan_chosen", "generation_started", "job_finished"}) {
    INFO(type);
    CHECK(scene.events(type).size() == 1);
  }
  CHECK(scene.out().find("done: 20 steps") != std::string::npos);
  CHECK(scene.out().find("\ngoodput: ") != std::string::npos);
  const auto goodput = scene.events("goodput");
  REQUIRE(goodput.size() == 1);
  CHECK(goodput[0]["num_failures"].integer() == 0);
  CHECK(goodput[0]["start_seconds"].number() > 0);
  double classes = 0;
  for (const char* name : {"useful_seconds", "start_seconds", "checkpoint_seconds", "detection_seconds",
                           "recovery_seconds", "recomputed_seconds", "slower_plan_seconds", "other_seconds"})
    classes += goodput[0][name].number();
  CHECK(classes == Approx(goodput[0]["total_seconds"].number()));
  scene.nothing_in_temporary_folder();
}

TEST_CASE("a plan with its cluster and profile beside it runs without measuring anew", "[process]") {
  Scene scene;
  REQUIRE(scene.wait(scene.start()) == 0);
  const auto before = scene.folder / "before";
  std::filesystem::rename(scene.run(), before);
  const std::string model_hash = (*parse_json(*read_file(before / "plan-1.json")))["plan"]["model_hash"].string();
  Json cluster = *parse_json(*read_file(before / "cluster.json"));
  const std::string device_class = cluster["device_classes"].array()[0]["name"].string();
  cluster["device_classes"].array()[0]["memory_bandwidth_bytes_per_second"]["value"] = 7e9;  // none measures this
  REQUIRE(write_file(before / "cluster.json", to_text(cluster)));
  const auto write_profile = [&](const std::string& hash) {
    cluster::Profile profile;
    profile.model_hash = hash;
    profile.blocks.push_back({"some block", device_class, 1, Seconds(1e-3), Seconds(2e-3), Bytes(10), Bytes(20)});
    profile.devices.push_back({device_class, Seconds(1e-9), Seconds(1e-9), Seconds(0), Seconds(0), Bytes(0)});
    REQUIRE(write_file(before / "profile.json", to_text(cluster::to_json(profile))));
  };
  const auto bandwidth = [&] {
    const Json used = *parse_json(*read_file(scene.run() / "cluster.json"));
    return used["device_classes"].array()[0]["memory_bandwidth_bytes_per_second"]["value"].number();
  };
  SECTION("of its model") {
    write_profile(model_hash);
    REQUIRE(scene.wait(scene.start({"--plan", (before / "plan-1.json").string()}, "second")) == 0);
    CHECK(bandwidth() == 7e9);
    CHECK(*read_file(scene.run() / "profile.json") != "");
    CHECK(read_lines(scene.run() / "metrics.jsonl").size() == 20);
    CHECK(scene.err("second").find("nothing is measured anew") != std::string::npos);
  }
  SECTION("of another model: not taken") {
    write_profile("another");
    REQUIRE(scene.wait(scene.start({"--plan", (before / "plan-1.json").string()}, "second")) == 0);
    CHECK(bandwidth() == 1e10);  // as fake_worker says
  }
  SECTION("other devices than there are: refused") {
    write_profile(model_hash);
    CHECK(scene.wait(scene.start({"--plan", (before / "plan-1.json").string(), "--devices", "1xcpu"}, "second")) != 0);
    CHECK(scene.err("second").find("another cluster") != std::string::npos);
  }
}

TEST_CASE("a rank that is slower than predicted is told of", "[process]") {
  Gate gate("coxswain-gate");
  Scene scene("slow " + gate.fake("20"), 30);
  const int launch = scene.start();
  scene.await([&] { return !scene.events("calibrated").empty(); });
  gate.open();
  REQUIRE(scene.wait(launch) == 0);
  CHECK(read_lines(scene.run() / "metrics.jsonl").size() == 30);
  const auto found = scene.events("calibrated");
  const auto slow = std::find_if(found.begin(), found.end(), [](const Json& event) {
    return event["what"] == Json("device") && event["ranks"] == Json(JsonArray{Json(1)});
  });
  REQUIRE(slow != found.end());
  CHECK((*slow)["generation"] == Json(1));
  CHECK((*slow)["local_device"] == Json(1));
  CHECK((*slow)["rate_ratio"].number() < 0.1);
  CHECK((*slow)["measured_seconds"].number() == Approx(0.2));  // a forward and a backward
  CHECK(scene.out().find("calibrated: device 1 of node 0") != std::string::npos);
  CHECK(scene.events("replanned").empty());  // the job allows no restarts
}

TEST_CASE("a cluster file with a profile of the job beside it: nothing is measured", "[process]") {
  Scene scene("", 20);
  REQUIRE(scene.wait(scene.start({}, "first")) == 0);
  const auto before = scene.folder / "before";
  std::filesystem::rename(scene.run(), before);
  const Json plan = *parse_json(*read_file(before / "plan-1.json"));
  const Json cluster = *parse_json(*read_file(before / "cluster.json"));
  const std::string device_class = cluster["device_classes"].array()[0]["name"].string();
  cluster::Profile profile;
  profile.precision = "float32";
  profile.blocks.push_back({"some block", device_class, 1, Seconds(1e-3), Seconds(2e-3), Bytes(10), Bytes(20)});
  profile.devices.push_back({device_class, Seconds(1e-9), Seconds(1e-9), Seconds(0), Seconds(0), Bytes(0)});
  const auto start = [&](const std::string& model_hash) {
    profile.model_hash = model_hash;
    REQUIRE(write_file(before / "profile.json", to_text(cluster::to_json(profile))));
    std::ofstream(scene.folder / "job.yaml", std::ios::app)
        << "cluster: " << (before / "cluster.json").string() << "\n";
    REQUIRE(scene.wait(scene.start({}, "second")) == 0);
    return scene.err("second").find("nothing is measured anew") != std::string::npos;
  };
  SECTION("of this model") { CHECK(start(plan["plan"]["model_hash"].string())); }
  SECTION("of another one") { CHECK_FALSE(start("another")); }
}

TEST_CASE("a rank that ends names rank, node and cause, and ends the run with exit 1", "[process]") {
  const auto [action, cause] = GENERATE(table<std::string, std::string>(
      {{"kill", "signal 9"}, {"segv", "signal 11"}, {"abort", "signal 6"}, {"exit3", "exit 3"}, {"exit0", "exit 0"}}));
  INFO(action);
  Scene scene("1:4:" + action);
  const int launch = scene.start();
  CHECK(scene.wait(launch) == 1);
  const auto failed = scene.events("worker_failed");
  REQUIRE(failed.size() == 1);
  CHECK(failed[0]["rank"].integer() == 1);
  CHECK(failed[0]["node"].integer() == 0);
  CHECK(failed[0]["cause"].string() == cause);
  INFO(scene.err());
  CHECK(scene.err().find("error: rank 1 on node 0") != std::string::npos);
  CHECK(scene.err().find(cause) != std::string::npos);
  CHECK(scene.err().find("about to " + action) != std::string::npos);
  CHECK(count_lines(scene.run() / "metrics.jsonl") <= 3);
  INFO(scene.out());
  CHECK(scene.out().find("failure 1: rank 1 on node 0: " + cause + "; generation 1, after step ") != std::string::npos);
  CHECK(scene.out().find("evidence: about to " + action) != std::string::npos);
  CHECK(scene.out().find("action:   the run ended; ") != std::string::npos);
  const auto goodput = scene.events("goodput");
  REQUIRE(goodput.size() == 1);
  CHECK(goodput[0]["failures"].array().at(0)["log"] == failed[0]["log"]);
  scene.nothing_in_temporary_folder();
}

TEST_CASE("what a worker says of itself decides the exit code", "[process]") {
  Scene bug("0:2:error");
  CHECK(bug.wait(bug.start()) == 93);
  Scene input("0:2:bad_input");
  CHECK(input.wait(input.start()) == 65);
  CHECK(input.err().find("no kernel for operator aten::strange") != std::string::npos);
}

TEST_CASE("kill -9 of a worker or the agent ends everything with exit 1", "[process]") {
  const std::string victim = GENERATE("worker", "local-agent");
  INFO(victim);
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  REQUIRE(pids.size() == 5);  // launch, coordinator, agent, two workers
  const int pid = scene.find(pids, victim == "worker" ? "fake_worker" : victim);
  REQUIRE(pid > 0);
  REQUIRE(::kill(pid, SIGKILL) == 0);
  CHECK(scene.wait(launch) == 1);
  scene.none_remains(pids);
  scene.nothing_in_temporary_folder();
  INFO(scene.err());
  if (victim == "worker") CHECK(scene.events("worker_failed").at(0)["cause"].string() == "signal 9");
  if (victim == "local-agent") CHECK(scene.err().find("is lost") != std::string::npos);
  if (victim == "local-agent") CHECK(scene.events("node_lost").size() == 1);
}

TEST_CASE("a worker that is stopped is named, and leaves nothing behind", "[process]") {
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  const int pid = scene.find(pids, "fake_worker");
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  CHECK(scene.wait(launch) == 1);
  scene.none_remains(pids);
  INFO(scene.err());
  REQUIRE(scene.events("worker_failed").size() == 1);
  CHECK(scene.events("worker_failed")[0]["cause"].string() == "stopped (SIGSTOP) for 3 s");
}

TEST_CASE("kill -9 of launch itself leaves no process behind", "[process]") {
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  REQUIRE(pids.size() == 5);
  REQUIRE(::kill(launch, SIGKILL) == 0);
  CHECK(scene.wait(launch) == 128 + SIGKILL);
  scene.none_remains(pids);
}

TEST_CASE("SIGINT before a step ends is waited for, a second one is not", "[process]") {
  Scene scene("hold");
  const int launch = scene.start();
  scene.await_steps();
  const std::vector<int> pids = scene.everybody(launch);
  REQUIRE(::kill(launch, SIGINT) == 0);
  REQUIRE(::kill(launch, SIGTERM) == 0);
  const int code = scene.wait(launch);
  CHECK((code == 128 + SIGINT || code == 128 + SIGTERM));
  CHECK(scene.err().find("stopped by SIG") != std::string::npos);
  scene.none_remains(pids);
}

TEST_CASE("a used run directory and a taken port are refused with 71, and nothing is left", "[process]") {
  Scene used;
  std::filesystem::create_directories(used.run());
  std::ofstream(used.run() / "metrics.jsonl") << "x";
  CHECK(used.wait(used.start()) == 71);
  CHECK(used.err().find("holds another run") != std::string::npos);

  Scene port;
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(socket, 1) == 0);
  REQUIRE(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  CHECK(port.wait(port.start({"--rdzv-endpoint", "127.0.0.1:" + std::to_string(ntohs(address.sin_port))})) == 71);
  ::close(socket);
  CHECK(port.err().find("cannot listen") != std::string::npos);
  CHECK_FALSE(std::filesystem::exists(port.run()));
}

TEST_CASE("two nodes on one machine share a token; another token is refused", "[process]") {
  Scene scene("", 5);
  REQUIRE(write_file(scene.folder / "token", "0123456789abcdef0123456789abcdef\n"));
  REQUIRE(write_file(scene.folder / "wrong", "fedcba9876543210fedcba9876543210\n"));
  const std::string endpoint = "127.0.0.1:" + std::to_string(free_port());
  const auto flags = [&](const std::string& rank, const std::string& token) {
    return std::vector<std::string>{"--nnodes",         "2",      "--node-rank",  rank,
                                    "--rdzv-endpoint",  endpoint, "--token-file", (scene.folder / token).string(),
                                    "--nproc-per-node", "1"};
  };
  const int first = scene.start(flags("0", "token"), "first");
  const int stranger = scene.start(flags("1", "wrong"), "stranger");
  CHECK(scene.wait(stranger) == 93);
  CHECK(scene.err("stranger").find("key") != std::string::npos);
  const int second = scene.start(flags("1", "token"), "second");
  CHECK(scene.wait(first) == 0);
  CHECK(scene.wait(second) == 0);
  CHECK(count_lines(scene.run() / "metrics.jsonl") == 5);
  CHECK(scene.events("node_joined").size() == 2);
}

TEST_CASE("a node that waits for its run ends when it is asked to, and leaves nothing", "[process]") {
  Scene scene;
  REQUIRE(write_file(scene.folder / "token", "0123456789abcdef0123456789abcdef\n"));
  const std::string nobody = "127.0.0.1:" + std::to_string(free_port());
  const int node = scene.start({"--nnodes", "2", "--node-rank", "1", "--rdzv-endpoint", nobody, "--token-file",
                                (scene.folder / "token").string(), "--devices", "1xcpu"});
  scene.await([&] { return handles(node, SIGTERM); });
  REQUIRE(::kill(node, SIGTERM) == 0);
  CHECK(scene.wait(node) == 75);
  scene.nothing_in_temporary_folder();
}

TEST_CASE("a node that is killed as a whole is left out: the other goes on under a plan of its own", "[process]") {
  Gate gate("coxswain-gate");
  Scene scene(gate.fake(), 8, "256", "elastic: {max_restarts: 3}\n");
  REQUIRE(write_file(scene.folder / "token", "0123456789abcdef0123456789abcdef\n"));
  const std::string endpoint = "127.0.0.1:" + std::to_string(free_port());
  const auto flags = [&](const std::string& rank) {
    return std::vector<std::string>{"--nnodes",        "2",      "--node-rank",  rank,
                                    "--rdzv-endpoint", endpoint, "--token-file", (scene.folder / "token").string(),
                                    "--devices",       "1xcpu"};
  };
  const int first = scene.start(flags("0"), "first");
  const int second = scene.start(flags("1"), "second");
  scene.await_steps();
  const std::vector<int> lost = scene.everybody(second);
  REQUIRE(scene.events("generation_started").at(0)["ranks"].integer() == 2);
  REQUIRE(::kill(second, SIGKILL) == 0);
  scene.await([&] { return scene.events("generation_started").size() == 2; });
  gate.open();
  INFO(scene.err("first"));
  CHECK(scene.wait(first) == 0);
  scene.none_remains(lost);
  CHECK(scene.events("node_lost").at(0)["node"].integer() == 1);
  REQUIRE(scene.events("replanned").size() == 1);
  CHECK(scene.events("replanned")[0]["devices"].integer() == 1);
  CHECK(scene.events("generation_started")[1]["ranks"].integer() == 1);
  CHECK(std::filesystem::exists(scene.run() / "cluster-2.json"));
  const Json plan = *parse_json(*read_file(scene.run() / "plan-2.json"));
  CHECK(plan["plan"]["model_hash"] == (*parse_json(*read_file(scene.run() / "plan-1.json")))["plan"]["model_hash"]);
  CHECK(read_lines(scene.run() / "metrics.jsonl").back()["generation"].integer() == 2);
}
