#include "launcher/rest/node_pool.h"

#include <algorithm>

#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

using Texts = std::vector<std::string>;

struct Pool {
  ManualClock clock;
  NodePool pool{clock};
  Texts answered;  // "NAME JOB", "NAME -": it is to ask again

  void ask(const std::string& name, const std::string& job = "", double wait = NodePool::kMostWaitSeconds) {
    NodeReport report;
    report.name = name;
    report.job = job;
    REQUIRE(pool.ask(report, wait, [this, name](const NodeAnswer& answer) {
      answered.push_back(name + " " + (answer.run ? answer.run->job : answer.over ? "over" : "-"));
    }));
  }
  Texts take() { return std::exchange(answered, {}); }
  void later(double seconds) {
    clock.advance(Seconds(seconds));
    pool.look();
  }
  [[nodiscard]] Texts names() const {
    Texts names;
    for (const NodeReport& report : pool.all()) names.push_back(report.name);
    return names;
  }
};

}  // namespace

TEST_CASE("a run gets the nodes that waited longest, as many as it takes, and those that come later", "[node_pool]") {
  Pool pool;
  pool.ask("c");
  pool.later(1);
  pool.ask("a");
  pool.later(1);
  pool.ask("b");
  CHECK(pool.pool.num_waiting() == 3);
  CHECK(pool.take().empty());
  pool.pool.begin({"job", "", 29400, "token"}, 2);
  CHECK(pool.take() == Texts{"c job", "a job"});
  CHECK(pool.pool.num_waiting() == 1);
  pool.later(1);
  CHECK(pool.take().empty());
  CHECK(pool.pool.leave("a"));
  CHECK(pool.take() == Texts{"b job"});
  CHECK_FALSE(pool.pool.leave("a"));
  pool.ask("d");
  CHECK(pool.take().empty());
  pool.pool.end();
  pool.pool.begin({"next", "", 29400, "token"}, 2);
  CHECK(pool.take() == Texts{"d next"});
}

TEST_CASE("a node that is back from a run makes room, and is called by it again after a while", "[node_pool]") {
  Pool pool;
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  pool.ask("a");
  CHECK(pool.take() == Texts{"a job"});
  pool.ask("a", "job");  // it works
  CHECK(pool.take() == Texts{"a -"});
  pool.ask("b");
  CHECK(pool.take().empty());
  pool.ask("a");
  CHECK(pool.take() == Texts{"b job"});
  pool.later(1);
  pool.ask("b");  // back at once: both wait now
  pool.later(NodePool::kAgainSeconds - 2);
  CHECK(pool.take().empty());
  pool.later(2);
  CHECK(pool.take() == Texts{"a job"});
}

TEST_CASE("another run may call a node at once", "[node_pool]") {
  Pool pool;
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  pool.ask("a");
  pool.pool.end();
  pool.ask("a");
  CHECK(pool.take() == Texts{"a job"});
  pool.pool.begin({"next", "", 29400, "token"}, 1);
  CHECK(pool.take() == Texts{"a next"});
}

TEST_CASE("who waits long is told to ask again, and who does not is forgotten", "[node_pool]") {
  Pool pool;
  pool.ask("a");
  pool.ask("b");
  pool.later(NodePool::kMostWaitSeconds - 1);
  CHECK(pool.take().empty());
  pool.later(1);
  CHECK(pool.take() == Texts{"a -", "b -"});
  pool.ask("b");
  pool.later(NodePool::kSilenceSeconds - NodePool::kMostWaitSeconds);
  CHECK(pool.names() == Texts{"b"});
}

TEST_CASE("who is called and does not say that it works makes room, and so does who says it no more", "[node_pool]") {
  Pool pool;
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  for (const char* name : {"a", "b", "c"}) pool.ask(name);
  CHECK(pool.take() == Texts{"a job"});
  pool.later(NodePool::kCalledSeconds - 1);
  CHECK(pool.take().empty());
  pool.later(1);
  CHECK(pool.take() == Texts{"b job"});
  pool.ask("b", "job");
  CHECK(pool.take() == Texts{"b -"});
  pool.later(1);
  pool.ask("c");
  CHECK(pool.take() == Texts{"c -"});
  pool.later(NodePool::kMostWaitSeconds - 1);
  CHECK(pool.names() == Texts{"b", "c"});
  CHECK(pool.take().empty());
  pool.later(NodePool::kSilenceSeconds - NodePool::kMostWaitSeconds);
  CHECK(pool.names() == Texts{"c"});
  CHECK(pool.take() == Texts{"c job"});
}

TEST_CASE("who comes back again and again is called no more by that run, and is by another", "[node_pool]") {
  Pool pool;
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  for (int call = 0; call < NodePool::kMostCalls; ++call) {
    pool.ask("a");
    if (call > 0) {
      CHECK(pool.take().empty());
      pool.later(NodePool::kAgainSeconds);
    }
    CHECK(pool.take() == Texts{"a job"});
    pool.ask("a", "job");
    CHECK(pool.take() == Texts{"a -"});
  }
  pool.ask("a");
  pool.later(NodePool::kAgainSeconds);
  CHECK(pool.take().empty());
  pool.pool.begin({"next", "", 29400, "token"}, 1);
  CHECK(pool.take() == Texts{"a next"});
}

TEST_CASE("who works for what is not under way is told that it is over", "[node_pool]") {
  Pool pool;
  pool.ask("a", "job");
  CHECK(pool.take() == Texts{"a over"});
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  pool.ask("a", "job");
  CHECK(pool.take() == Texts{"a -"});
  pool.pool.end();
  pool.ask("a", "job");
  CHECK(pool.take() == Texts{"a over"});
  pool.pool.close();  // what runs may be saving
  pool.ask("a", "job");
  CHECK(pool.take() == Texts{"a -"});
}

TEST_CASE("who asks anew waits there, and nobody waits once the pool is closed", "[node_pool]") {
  Pool pool;
  pool.ask("a");
  pool.ask("a");
  CHECK(pool.take() == Texts{"a -"});
  CHECK(pool.pool.num_waiting() == 1);
  pool.pool.close();
  CHECK(pool.take() == Texts{"a -"});
  pool.ask("a");
  CHECK(pool.take() == Texts{"a -"});
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  CHECK(pool.take().empty());
}

TEST_CASE("who does not want to wait is answered at once", "[node_pool]") {
  Pool pool;
  pool.ask("a", "", 0);
  CHECK(pool.take() == Texts{"a -"});
  CHECK(pool.pool.num_waiting() == 0);
  pool.ask("b", "", 3);
  pool.ask("c", "", 1e9);
  pool.later(3);
  CHECK(pool.take() == Texts{"b -"});
  pool.later(NodePool::kMostWaitSeconds - 3);
  CHECK(pool.take() == Texts{"c -"});
  pool.pool.begin({"job", "", 29400, "token"}, 1);
  pool.ask("a", "", 0);
  CHECK(pool.take() == Texts{"a job"});
}

TEST_CASE("what an agent may not say of its node is told all at once", "[node_pool]") {
  NodeReport report;
  report.cores = 2.5;
  report.memory_bytes = 1 << 30;
  report.cuda_devices = JsonArray{JsonObject{{"name", "a"}, {"memory_bytes", 80}}};
  report.job = "job";
  const auto again = node_report_from_json("node-1", node_request_json(report));
  REQUIRE(again);
  CHECK(again->name == "node-1");
  report.name = "node-1";
  CHECK(to_json(*again) == to_json(report));

  const auto refused =
      node_report_from_json("no/name", *parse_json(R"({"cores": -1, "cpu_model": 1, "memory_bytes": 0.5,
                                 "cuda_devices": [{"name": "a"}], "other": 1})"));
  REQUIRE_FALSE(refused);
  Texts paths;
  for (const Error& error : refused.error().details) paths.push_back(error.path);
  std::sort(paths.begin(), paths.end());
  CHECK(paths == Texts{"cores", "cpu_model", "cuda_devices[0].memory_bytes", "memory_bytes", "name", "other"});
}
