#include "launcher/control/run_directory.h"

#include <sys/stat.h>

#include <fstream>

#include "common/bytes_io.h"
#include "tests/support/manual_clock.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

int mode_of(const std::filesystem::path& path) {
  struct stat status{};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return static_cast<int>(status.st_mode & 0777);
}

}  // namespace

TEST_CASE("a run directory and its files are the owner's alone", "[run_directory]") {
  TempDir temp;
  ManualClock clock;
  const auto folder = temp / "a/b";
  REQUIRE(make_run_directory(folder));
  CHECK(mode_of(folder) == 0700);
  const RunDirectory files(folder, clock);
  REQUIRE(files.write("plan-1.json", "{}"));
  REQUIRE(files.append("metrics.jsonl", JsonObject{{"step", 1}}));
  REQUIRE(files.append("metrics.jsonl", JsonObject{{"step", 2}}));
  REQUIRE(files.append_event(JsonObject{{"type", "plan_chosen"}}));
  CHECK(mode_of(folder / "plan-1.json") == 0600);
  CHECK(mode_of(folder / "metrics.jsonl") == 0600);
  CHECK(mode_of(folder / "events.jsonl") == 0600);
  CHECK(*read_file(folder / "metrics.jsonl") == "{\"step\":1}\n{\"step\":2}\n");
  CHECK(*read_file(folder / "events.jsonl") == "{\"time\":\"2000-01-01T00:00:00.000Z\",\"type\":\"plan_chosen\"}\n");
}

TEST_CASE("a folder that holds another run is refused, an empty one is taken", "[run_directory]") {
  TempDir temp;
  std::filesystem::create_directories(temp / "empty");
  CHECK(make_run_directory(temp / "empty"));
  std::filesystem::create_directories(temp / "used");
  std::ofstream(temp / "used/metrics.jsonl") << "x";
  const auto refused = make_run_directory(temp / "used");
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::AlreadyExists);
  const auto not_folder = make_run_directory(temp / "used/metrics.jsonl/run");
  REQUIRE_FALSE(not_folder);
  CHECK(not_folder.error().code == ErrorCode::FailedPrecondition);
}

TEST_CASE("the end of a file is found from a known one on, and a torn line is cut off", "[run_directory]") {
  TempDir temp;
  const ManualClock clock;
  const RunDirectory folder(temp.path(), clock);
  CHECK(folder.find_end("metrics.jsonl", {})->lines == 0);
  CHECK(folder.size("metrics.jsonl") == 0);
  REQUIRE(folder.append("metrics.jsonl", JsonObject{{"step", 1}}));
  const FileEnd first = *folder.find_end("metrics.jsonl", {});
  CHECK(first.lines == 1);
  CHECK(first.bytes == 11);  // {"step":1} and its end
  REQUIRE(folder.append("metrics.jsonl", JsonObject{{"step", 2}}));
  std::ofstream(temp / "metrics.jsonl", std::ios::app) << "{\"step\":";
  CHECK(folder.size("metrics.jsonl") == 30);
  const FileEnd known = GENERATE_COPY(FileEnd{}, first);
  const auto end = folder.find_end("metrics.jsonl", known);
  REQUIRE(end);
  CHECK(end->lines == 2);
  CHECK(end->bytes == 22);
  REQUIRE(folder.append("metrics.jsonl", JsonObject{{"step", 3}}));
  CHECK(*read_file(temp / "metrics.jsonl") == "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  const auto shorter = folder.find_end("metrics.jsonl", {9, 99});
  REQUIRE_FALSE(shorter);
  CHECK(shorter.error().code == ErrorCode::DataLoss);
}

TEST_CASE("lines that are longer than what is read at once are counted", "[run_directory]") {
  TempDir temp;
  const ManualClock clock;
  const RunDirectory folder(temp.path(), clock);
  for (int i = 0; i < 3; ++i) REQUIRE(folder.append("metrics.jsonl", JsonObject{{"text", std::string(1500000, 'a')}}));
  std::ofstream(temp / "metrics.jsonl", std::ios::app) << std::string(2500000, 'b');
  const auto end = folder.find_end("metrics.jsonl", {});
  REQUIRE(end);
  CHECK(end->lines == 3);
  CHECK(folder.size("metrics.jsonl") == end->bytes);
}

TEST_CASE("the default name holds the job and the time", "[run_directory]") {
  ManualClock clock;
  CHECK(default_run_directory("kjv-gpt", clock) == "runs/kjv-gpt-20000101-000000");
}
