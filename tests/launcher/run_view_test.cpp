#include "launcher/watching/run_view.h"

#include <fstream>

#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

void append(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::app) << text;
}

/// A run of 100 steps that has taken two, and failed once.
void write_run(const std::filesystem::path& run) {
  append(run / "job.yaml",
         "name: kjv\nmodel: {pt2: gpt.pt2}\ndata: {text: text.txt, sequence_length: 16}\nbatch: {global: 8}\n"
         "train: {steps: 100}\n");
  append(run / "events.jsonl",
         R"({"type": "generation_started", "generation": 1}
{"type": "worker_failed", "rank": 1, "node": 0, "cause": "signal 9"}
{"type": "recovered", "seconds": 1.5, "steps_lost": 0}
{"type": "generation_started", "generation": 2}
)");
  append(run / "metrics.jsonl",
         R"({"step": 1, "generation": 1, "loss": 5.5, "step_seconds": 20, "predicted_step_seconds": 0.4}
{"step": 2, "generation": 2, "loss": 5.25, "step_seconds": 0.5, "predicted_step_seconds": 0.4, "tokens_per_second": 256, "peak_memory_bytes": [1048576, 2097152], "predicted_peak_memory_bytes": [1048576, 1048576]}
{"step": 3, "cut sho)");
}

}  // namespace

TEST_CASE("a run that goes on is as far as its files say", "[run_view]") {
  const TempDir folder;
  write_run(folder.path());
  auto watcher = RunWatcher::open(folder.path());
  REQUIRE(watcher);
  const RunView view = watcher->look();
  CHECK(view.name == "kjv");
  CHECK_FALSE(view.ended);
  CHECK(view.step == 2);
  CHECK(view.steps == 100);
  CHECK(view.generation == 2);
  CHECK(view.loss == 5.25);
  CHECK(view.remaining_seconds == Approx(49));
  CHECK(view.peak_memory_bytes == 2097152);
  CHECK(view.failures.size() == 1);
  CHECK(view.lost_seconds == 1.5);
  const std::string table = to_table(view);
  CHECK(table.find("state      running, generation 2\n") != std::string::npos);
  CHECK(table.find("step       2 of 100  [                              ]  49.0 s to go\n") != std::string::npos);
  CHECK(table.find("step time  500.0 ms  (predicted 400.0 ms, -20.0 %)\n") != std::string::npos);
  CHECK(table.find("memory     2.0 MiB  (predicted 1.0 MiB)\n") != std::string::npos);
  CHECK(table.find("failures   1, 1.5 s lost; the last: rank 1 on node 0: signal 9\n") != std::string::npos);

  append(folder / "metrics.jsonl", "rt\"}\n{\"step\": 100, \"loss\": null, \"step_seconds\": 0.5}\n");
  append(folder / "events.jsonl", "{\"type\": \"job_finished\", \"exit_code\": 93}\n");
  const RunView after = watcher->look();
  CHECK(after.ended);
  CHECK(after.exit_code == 93);
  CHECK(after.step == 100);
  CHECK_FALSE(after.loss);
  CHECK(after.remaining_seconds == 0);
  CHECK(to_json(after)["loss"].is_null());
  CHECK(to_json(after)["exit_code"].integer() == 93);
}

TEST_CASE("a run is named by its folder or by the job that it is of", "[run_view]") {
  const TempDir folder;
  write_run(folder / "run");
  write_run(folder / "state" / "jobs" / "20260102-030405678-0001" / "run-9");
  write_run(folder / "state" / "jobs" / "20260102-030405678-0001" / "run-10");
  const auto state = folder / "state";
  CHECK(*find_run((folder / "run").string(), state) == folder / "run");
  CHECK(find_run("20260102-030405678-0001", state)->filename() == "run-10");
  const auto none = find_run("nothing", state);
  REQUIRE_FALSE(none);
  CHECK(none.error().code == ErrorCode::NotFound);
  CHECK(none.error().got.find("20260102-030405678-0001") != std::string::npos);
}

TEST_CASE("logs are told by generation and rank, each line with its rank, once", "[run_view]") {
  const TempDir folder;
  const auto logs = folder / "logs";
  append(logs / "generation_2" / "0" / "stderr", "late\n");
  append(logs / "generation_1" / "1" / "stdout", "one\ntwo\nthr");
  append(logs / "generation_1" / "0" / "stderr", "zero\n");
  LogMerger all(folder.path(), {});
  CHECK(all.next(false) == "[rank 0] zero\n[rank 1] one\n[rank 1] two\n[rank 0] late\n");
  CHECK(all.next(false).empty());
  append(logs / "generation_1" / "1" / "stdout", "ee\n");
  append(logs / "generation_2" / "1" / "stdout", "new file, cut");
  CHECK(all.next(false) == "[rank 1] three\n");
  CHECK(all.next(true) == "[rank 1] new file, cut\n");
  LogFilter filter;
  filter.ranks = {1};
  filter.containing = "t";
  CHECK(LogMerger(folder.path(), filter).next(true) == "[rank 1] two\n[rank 1] three\n[rank 1] new file, cut\n");
  filter = {};
  filter.stdout_too = false;
  CHECK(LogMerger(folder.path(), filter).next(true) == "[rank 0] zero\n[rank 0] late\n");
}
