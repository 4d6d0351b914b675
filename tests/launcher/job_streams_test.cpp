#include "launcher/rest/job_streams.h"

#include <fstream>

#include "common/json.h"
#include "tests/launcher/job_bench.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

void append(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::app) << text;
}

/// All that comes now.
std::string all(const ReadMore& more, bool* ended = nullptr) {
  std::string text;
  for (auto part = more(); part; part = more()) {
    if (part->empty()) return text;
    text += *part;
  }
  if (ended != nullptr) *ended = true;
  return text;
}

}  // namespace

TEST_CASE("events come by their type and place, and the state when it changes; the job's end ends them",
          "[job_streams]") {
  JobBench bench;
  bench.open();
  bench.send("a");
  const auto process = bench.started();
  const auto events = stream_events(*bench.runner, "a", {});
  const std::filesystem::path file = bench.folder / "a" / "run-1" / "events.jsonl";
  append(file, R"({"type":"plan_chosen","time":1})"
               "\n");
  CHECK(all(events) ==
        "id: 1-1\nevent: plan_chosen\ndata: {\"time\":1,\"type\":\"plan_chosen\"}\n\n"
        "event: state\ndata: {\"state\":\"running\"}\n\n");
  append(file, R"({"type":"job_finished","time":2})"
               "\n"
               R"({"type":"half)");
  bench.exits(process.pid, 0);
  bench.runner->drain();
  bench.runner->wait();
  bool ended = false;
  CHECK(all(events, &ended) ==
        "id: 1-2\nevent: job_finished\ndata: {\"time\":2,\"type\":\"job_finished\"}\n\n"
        "event: state\ndata: {\"state\":\"finished\"}\n\n");
  CHECK(ended);
  // From a place on: what a client that lost its connection asks for.
  CHECK(all(stream_events(*bench.runner, "a", *parse_event_id("1-1"))) ==
        "id: 1-2\nevent: job_finished\ndata: {\"time\":2,\"type\":\"job_finished\"}\n\n"
        "event: state\ndata: {\"state\":\"finished\"}\n\n");
}

TEST_CASE("a client that knows much is given what follows, however much that was", "[job_streams]") {
  JobBench bench;
  bench.open();
  bench.send("a");
  const auto process = bench.started();
  std::string events;
  for (int i = 0; i < 5000; ++i) events += R"({"type":"checkpoint_saved","step":)" + std::to_string(i) + "}\n";
  append(bench.folder / "a" / "run-1" / "events.jsonl", events);
  CHECK(all(stream_events(*bench.runner, "a", *parse_event_id("1-4999")))
            .starts_with("id: 1-5000\nevent: checkpoint_saved\ndata: {\"step\":4999,"));
  bench.exits(process.pid, 0);
}

TEST_CASE("an event's id is an attempt and a line", "[job_streams]") {
  CHECK(parse_event_id("")->line == 0);
  CHECK(parse_event_id("2-17")->attempt == 2);
  CHECK(parse_event_id("2-17")->line == 17);
  for (const char* text : {"-", "1-", "-1", "x-1", "1-x", "1-2-3", "1", "99999999999-1"})
    CHECK_FALSE(parse_event_id(text));
}

TEST_CASE("logs of a rank are those of every generation, in order", "[job_streams]") {
  JobBench bench;
  bench.open();
  bench.send("a");
  const auto process = bench.started();
  const std::filesystem::path logs = bench.folder / "a" / "run-1" / "logs";
  append(logs / "generation_2" / "1" / "stdout", "second\n");
  append(logs / "generation_10" / "1" / "stdout", "tenth");
  append(logs / "generation_1" / "1" / "stdout", "first, killed in the mid");
  append(logs / "generation_1" / "0" / "stdout", "another rank\n");
  const ReadMore followed = stream_logs(*bench.runner, "a", {1, false}, true);
  CHECK(all(followed) == "first, killed in the midsecond\n");
  append(logs / "generation_10" / "1" / "stdout", " goes on\n");
  CHECK(all(followed) == "tenth goes on\n");
  bool ended = false;
  CHECK(all(stream_logs(*bench.runner, "a", {0, false}, false), &ended) == "another rank\n");
  CHECK(ended);
  CHECK(all(stream_logs(*bench.runner, "a", {0, true}, false)).empty());
  append(process.request.stdout_file, "step  loss\n");
  CHECK(all(stream_logs(*bench.runner, "a", {}, false)) == "step  loss\n");
  bench.exits(process.pid, 0);
}
