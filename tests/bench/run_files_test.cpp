// What benches read of runs that were disturbed, written by hand.
#include "bench/support/run_files.h"

#include <fstream>

#include "bench/support/fault_kinds.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::bench;

namespace {

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("the newest checkpoint has the largest number; what is being written is none") {
  const TempDir folder;
  CHECK(newest_checkpoint(folder.path()) == -1);
  for (const char* name : {"step_9", "step_10", "step_20.partial", "other"})
    std::filesystem::create_directories(folder.path() / name);
  CHECK(newest_checkpoint(folder.path()) == 10);
}

TEST_CASE("of steps that were taken twice the last one counts, also in the folder that the run went on in") {
  const TempDir folder;
  const RunFolders runs{folder.path() / "run", folder.path() / "run2"};
  write(runs[0] / "metrics.jsonl",
        "{\"step\":1,\"loss\":3.5}\n{\"step\":2,\"loss\":3.25}\n{\"step\":2,\"loss\":3.125}\n");
  write(runs[1] / "metrics.jsonl", "{\"step\":3,\"loss\":2.5}\n");
  const Steps steps = read_steps(runs);
  CHECK(steps.rows == 4);
  CHECK(steps.whole);
  REQUIRE(steps.losses.size() == 3);
  CHECK(steps.losses.at(2) == "3.125");
}

TEST_CASE("losses are compared in the 20 steps after a change of plan, not after a restart under the same") {
  const TempDir folder;
  const RunFolders runs{folder.path() / "run"};
  write(runs[0] / "events.jsonl",
        "{\"type\":\"generation_started\"}\n{\"type\":\"generation_started\",\"after_step\":40}\n"
        "{\"type\":\"replanned\"}\n{\"type\":\"generation_started\",\"after_step\":100}\n");
  Steps got, expected;
  expected.losses = {{30, "2.0"}, {50, "2.0"}, {120, "2.0"}, {121, "2.0"}};
  got.losses = {{30, "1.0"}, {50, "1.0"}, {120, "2.5"}, {121, "1.0"}};
  CHECK(farthest_after_changes(runs, got, expected) == 0.25);
}

TEST_CASE("failures are counted by their type") {
  const TempDir folder;
  write(folder.path() / "events.jsonl",
        "{\"cause\":\"signal 9\",\"type\":\"worker_failed\"}\n{\"type\":\"node_lost\"}\n{\"type\":\"recovered\"}\n");
  CHECK(count_failures(folder.path()) == 2);
  CHECK(count_events(folder.path(), "recovered") == 1);
  CHECK(last_event(folder.path(), {"worker_failed"})["cause"] == Json("signal 9"));
}

TEST_CASE("kinds that need several nodes, or nodes apart, are left out elsewhere") {
  const auto count = [](int nodes, bool apart) { return fault_kinds_of("all", nodes, apart).size(); };
  CHECK(count(2, true) == all_fault_kinds().size());
  CHECK(count(1, false) < count(2, false));
  CHECK(count(2, false) < count(2, true));
}
