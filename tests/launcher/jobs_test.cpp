#include "launcher/rest/jobs.h"

#include <algorithm>
#include <fstream>

#include "common/bytes_io.h"
#include "tests/launcher/job_bench.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

const char* const kJob =
    R"({"name": "tiny", "model": {"config": {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32,
  "vocab_size": 256, "n_positions": 16}}, "data": {"text": "text.txt", "sequence_length": 16}, "batch": {"global": 8},
  "train": {"steps": 100}})";

struct Desk {
  JobBench bench;
  TempDir root;
  std::unique_ptr<Jobs> jobs;

  Desk() {
    REQUIRE(write_file(root / "text.txt", "In the beginning\n"));
    bench.open();
    jobs = std::make_unique<Jobs>(ServedFiles{root.path(), root.path()}, steady_clock(), std::move(bench.runner));
  }
  HttpResponse send(const std::string& more = "", const std::string& key = "") {
    return jobs->submit(*parse_json(std::string(R"({"job": )") + kJob + more + "}"), key);
  }
  HttpResponse send_changed(const std::string& member, const char* value) {
    Json job = *parse_json(kJob);
    job.object()[member] = *parse_json(value);
    return jobs->submit(JsonObject{{"job", job}}, "");
  }
};

Json body(const HttpResponse& response) { return *parse_json(response.body); }
std::string id_of(const HttpResponse& response) { return body(response)["id"].string(); }

}  // namespace

TEST_CASE("a job that is sent waits, runs and is seen to step", "[jobs]") {
  Desk desk;
  const auto sent = desk.send(R"(, "devices": "1xcpu")");
  REQUIRE(sent.status == 201);
  const std::string id = id_of(sent);
  CHECK(sent.headers.at("Location") == "/v1/jobs/" + id);
  CHECK(body(sent)["state"].string() == "queued");
  const auto process = desk.bench.started();
  CHECK(process.request.arguments.back() == "1xcpu");
  const auto yaml = read_file(process.request.arguments[1]);
  REQUIRE(yaml);
  CHECK(yaml->find((desk.root / "text.txt").string()) != std::string::npos);
  const std::filesystem::path run = process.request.arguments[3];
  std::filesystem::create_directories(run);
  std::ofstream(run / "metrics.jsonl") << R"({"step": 1, "step_seconds": 0.5})"
                                          "\n"
                                          R"({"step": 60, "step_seconds": 0.25})"
                                          "\n";
  const Json shown = body(desk.jobs->look(id));
  CHECK(shown["state"].string() == "running");
  CHECK(shown["last"]["step"].integer() == 60);
  CHECK(shown["remaining_seconds"].number() == Approx(10));
  CHECK(body(desk.jobs->metrics(id, {}))["metrics"].array().size() == 2);
  CHECK(body(desk.jobs->metrics(id, {{"after", "1"}}))["metrics"].array().front()["step"].integer() == 60);
  CHECK(body(desk.jobs->metrics(id, {{"limit", "1"}}))["metrics"].array().front()["step"].integer() == 1);
  CHECK(desk.jobs->metrics(id, {{"limit", "0"}}).status == 400);
  CHECK(desk.jobs->metrics(id, {{"after", "-1"}}).status == 400);
  CHECK(desk.jobs->cancel(id).status == 202);
  desk.bench.exits(process.pid, 75);
  desk.jobs->drain();
  desk.jobs->wait();
  CHECK(body(desk.jobs->look(id))["state"].string() == "cancelled");
  CHECK(desk.jobs->cancel(id).status == 409);
  CHECK(desk.jobs->look("nothing").status == 404);
  CHECK(desk.jobs->cancel("nothing").status == 404);
}

TEST_CASE("a key that comes again is the same job, and may not come with another", "[jobs]") {
  Desk desk;
  const auto sent = desk.send("", "k");
  const auto again = desk.send("", "k");
  CHECK(again.status == 201);
  CHECK(again.headers.at("Location") == sent.headers.at("Location"));
  CHECK(desk.send(R"(, "devices": "1xcpu")", "k").status == 409);
  CHECK(id_of(desk.send()) != id_of(sent));
  CHECK(desk.send("", std::string(201, 'k')).status == 400);
  desk.bench.exits(desk.bench.started().pid, 0);
  desk.bench.exits(desk.bench.started().pid, 0);
}

TEST_CASE("jobs are listed newest first, page by page", "[jobs]") {
  Desk desk;
  std::vector<std::string> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(id_of(desk.send()));
  std::reverse(ids.begin(), ids.end());
  const Json first = body(desk.jobs->list({{"limit", "2"}}));
  CHECK(first["jobs"].array()[0]["id"].string() == ids[0]);
  CHECK(first["next"].string() == "/v1/jobs?after=" + ids[1] + "&limit=2");
  const Json second = body(desk.jobs->list({{"limit", "2"}, {"after", ids[1]}}));
  CHECK(second["jobs"].array().size() == 1);
  CHECK(second["next"].is_null());
  CHECK(desk.jobs->list({{"limit", "1000"}}).status == 400);
  for (int i = 0; i < 3; ++i) desk.bench.exits(desk.bench.started().pid, 0);
}

TEST_CASE("a model is needed as long as a job that names it has not ended", "[jobs]") {
  Desk desk;
  const auto sent = desk.send();
  REQUIRE(sent.status == 201);
  const auto process = desk.bench.started();
  const std::string sha256(64, 'a');
  CHECK_FALSE(desk.jobs->needs_model(sha256));
  REQUIRE(write_file(process.request.arguments[1], "model: {pt2: /models/" + sha256 + ".pt2}\n"));
  CHECK(desk.jobs->needs_model(sha256));
  CHECK(desk.jobs->remove(id_of(sent)).status == 409);
  desk.bench.exits(process.pid, 0);
  // The next one starts when the first has ended.
  REQUIRE(desk.send().status == 201);
  const auto next = desk.bench.started();
  CHECK_FALSE(desk.jobs->needs_model(sha256));
  CHECK(desk.jobs->remove(id_of(sent)).status == 204);
  CHECK(desk.jobs->look(id_of(sent)).status == 404);
  desk.bench.exits(next.pid, 0);
}

TEST_CASE("what a job may not name is refused, and nothing is kept", "[jobs]") {
  Desk desk;
  CHECK(desk.send_changed("data", R"({"text": "/etc/passwd", "sequence_length": 16})").status == 403);
  CHECK(desk.send_changed("data", R"({"text": "../text.txt", "sequence_length": 16})").status == 403);
  CHECK(desk.send_changed("cluster", R"("/etc/hosts")").status == 403);
  CHECK(desk.send_changed("environment", R"({"LD_PRELOAD": "a.so"})").status == 403);
  CHECK(desk.send_changed("checkpoint", R"({"directory": "/tmp/elsewhere"})").status == 422);
  CHECK(desk.send(R"(, "devices": "2xnothing")").status == 422);
  CHECK(desk.send(R"(, "more": 1)").status == 422);
  CHECK(std::filesystem::is_empty(desk.bench.folder.path()));
}
