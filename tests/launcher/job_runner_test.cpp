#include "launcher/rest/job_runner.h"

#include <csignal>

#include "checkpoint/folder.h"
#include "checkpoint/shard.h"
#include "common/bytes_io.h"
#include "tests/launcher/job_bench.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

using Texts = std::vector<std::string>;
const std::string kA = make_job_id("2026-01-02T03:04:05.678Z", 1), kB = make_job_id("2026-01-02T03:04:05.678Z", 2),
                  kC = make_job_id("2026-01-02T03:04:05.678Z", 10);

void keep_checkpoint(const std::filesystem::path& directory, std::int64_t step) {
  const auto folder = checkpoint::make_partial_folder(directory, step);
  REQUIRE(folder);
  checkpoint::PieceState state{checkpoint::whole_piece("w", {2}), {}};
  state.elements.fill({1, 2});
  auto shard = checkpoint::write_shard(*folder, "rank_0.safetensors", {state});
  REQUIRE(shard);
  checkpoint::Manifest manifest;
  manifest.progress.step = step;
  manifest.shards = {*shard};
  REQUIRE(checkpoint::publish(directory, manifest));
}

JobRecord kept(const JobBench& bench, const std::string& id) {
  const auto records = load_job_records(bench.folder.path());
  REQUIRE(records);
  for (const JobRecord& record : *records)
    if (record.id == id) return record;
  FAIL("no record of " << id);
  return {};
}

}  // namespace

TEST_CASE("jobs run one after another, in the order in which they were sent", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA);
  const auto first = bench.started();
  bench.send(kB);
  bench.send(kC);
  const std::string folder = bench.folder.path().string();
  CHECK(first.request.arguments ==
        Texts{"train", folder + "/" + kA + "/job.yaml", "--run-dir", folder + "/" + kA + "/run-1"});
  CHECK(first.request.program == "launch");
  CHECK(bench.runner->find(kA)->state == JobState::Running);
  CHECK(bench.runner->find(kB)->state == JobState::Queued);
  bench.exits(first.pid, 0);
  const auto second = bench.started();
  CHECK(second.request.arguments[1] == folder + "/" + kB + "/job.yaml");
  CHECK(bench.runner->find(kA)->state == JobState::Finished);
  CHECK(bench.runner->find(kA)->exit_code == 0);
  bench.exits(second.pid, 0);
  bench.exits(bench.started().pid, 0);
}

TEST_CASE("a job of several nodes waits for them, and those after it with it", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA, "3:4");
  bench.send(kB);
  bench.join("a");
  CHECK(bench.runner->find(kA)->state == JobState::Queued);
  bench.join("b");
  const auto process = bench.started();
  const std::filesystem::path folder = bench.folder.path() / kA;
  const Texts& arguments = process.request.arguments;
  CHECK(Texts(arguments.begin(), arguments.begin() + 4) ==
        Texts{"train", (folder / "job.yaml").string(), "--run-dir", (folder / "run-1").string()});
  CHECK(Texts(arguments.begin() + 4, arguments.end()) == Texts{"--nnodes", "3:4", "--node-rank", "0", "--rdzv-endpoint",
                                                               "head:29400", "--token-file",
                                                               (folder / "token-1").string()});
  const auto token = read_file(folder / "token-1");
  REQUIRE(token);
  CHECK(std::filesystem::status(folder / "token-1").permissions() ==
        (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  for (int node = 0; node < 2; ++node) {
    const auto called = bench.called();
    REQUIRE(called);
    CHECK(called->job == kA);
    CHECK(called->port == 29400);
    CHECK(called->token + "\n" == *token);
  }
  bench.join("c");  // it takes up to four
  CHECK(bench.called()->job == kA);
  bench.exits(process.pid, 0);
  const auto next = bench.started();
  CHECK(next.request.arguments[1] == (bench.folder.path() / kB / "job.yaml").string());
  CHECK_FALSE(std::filesystem::exists(folder / "token-1"));
  bench.exits(next.pid, 0);
}

TEST_CASE("a job that waits for nodes can be cancelled, and the next one runs", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA, "2");
  bench.send(kB);
  CHECK(bench.runner->cancel(kA));
  const auto next = bench.started();
  CHECK(next.request.arguments[1] == (bench.folder.path() / kB / "job.yaml").string());
  bench.exits(next.pid, 0);
}

TEST_CASE("a job that failed keeps what it said last, and the next one runs", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA);
  const auto first = bench.started();
  REQUIRE(write_file(first.request.stderr_file, "error: no such file\n  at:       text.txt\n"));
  bench.send(kB);
  bench.exits(first.pid, 65);
  const auto second = bench.started();
  const auto failed = *bench.runner->find(kA);
  CHECK(failed.state == JobState::Failed);
  CHECK(failed.exit_code == 65);
  CHECK(failed.failure == "error: no such file\n  at:       text.txt\n");
  CHECK(kept(bench, kA) == failed);
  bench.exits(second.pid, 0);
}

TEST_CASE("a job that has ended is forgotten with all it left, one that has not stays", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA);
  const auto first = bench.started();
  bench.send(kB);
  for (const std::string& id : {kA, kB}) {
    const auto refused = bench.runner->remove(id);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::FailedPrecondition);
  }
  bench.exits(first.pid, 0);
  const auto second = bench.started();
  REQUIRE(write_file(bench.folder / kA / "kept", "what a run left"));
  CHECK(bench.runner->remove(kA));
  CHECK_FALSE(bench.runner->find(kA));
  CHECK_FALSE(std::filesystem::exists(bench.folder / kA));
  CHECK(bench.runner->remove(kA).error().code == ErrorCode::NotFound);
  CHECK(std::filesystem::exists(bench.folder / kB));
  bench.exits(second.pid, 0);
}

TEST_CASE("a waiting job that is cancelled never starts, a running one is asked to save and end", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA);
  const auto first = bench.started();
  bench.send(kB);
  bench.send(kC);
  CHECK(bench.runner->cancel(kB));
  CHECK(bench.runner->find(kB)->state == JobState::Cancelled);
  CHECK_FALSE(bench.runner->cancel(kB));
  CHECK_FALSE(bench.runner->cancel("nothing"));
  CHECK(bench.runner->cancel(kA));
  CHECK(bench.signalled() == std::pair(first.pid, SIGTERM));
  CHECK(bench.runner->find(kA)->state == JobState::Running);
  bench.exits(first.pid, 75);
  const auto second = bench.started();
  CHECK(second.request.arguments[1] == (bench.folder / kC / "job.yaml").string());
  CHECK(bench.runner->find(kA)->state == JobState::Cancelled);
  bench.exits(second.pid, 0);
}

TEST_CASE("what does not end in its grace is killed", "[job_runner]") {
  JobBench bench;
  bench.open(100, Seconds(0));
  bench.send(kA);
  const auto first = bench.started();
  CHECK(bench.runner->cancel(kA));
  CHECK(bench.signalled() == std::pair(first.pid, SIGTERM));
  CHECK(bench.signalled() == std::pair(first.pid, SIGKILL));
  bench.runner->drain();
  bench.runner->wait();
  CHECK(bench.runner->find(kA)->state == JobState::Cancelled);
  CHECK(bench.runner->find(kA)->exit_code == 128 + SIGKILL);
}

TEST_CASE("a job that runs when the service ends goes on from its newest checkpoint", "[job_runner]") {
  JobBench bench;
  bench.open();
  bench.send(kA);
  bench.send(kB);
  const auto first = bench.started();
  keep_checkpoint(bench.folder / kA / "run-1" / "checkpoints", 40);
  bench.runner->drain();
  CHECK(bench.signalled() == std::pair(first.pid, SIGTERM));
  bench.exits(first.pid, 75);
  bench.runner.reset();  // and starts nothing else
  CHECK(kept(bench, kA).state == JobState::Queued);

  bench.open();
  const auto again = bench.started();
  const std::string folder = (bench.folder / kA).string();
  CHECK(again.request.arguments ==
        Texts{"train", folder + "/job.yaml", "--run-dir", folder + "/run-2", "--resume", folder + "/run-1"});
  // Killed this time, while it saved its first.
  REQUIRE(checkpoint::make_partial_folder(bench.folder / kA / "run-2" / "checkpoints", 60));
  bench.runner->drain();
  CHECK(bench.signalled().second == SIGTERM);
  bench.runner->drain();
  CHECK(bench.signalled() == std::pair(again.pid, SIGKILL));
  bench.runner.reset();
  bench.open();
  const auto third = bench.started();
  CHECK(third.request.arguments[3] == folder + "/run-3");
  CHECK(third.request.arguments.back() == folder + "/run-1");
  bench.exits(third.pid, 0);
  bench.exits(bench.started().pid, 0);
}

TEST_CASE("a job whose last step was saved before the service died is done", "[job_runner]") {
  JobBench bench;
  JobRecord record;
  record.id = kA;
  record.state = JobState::Running;
  record.attempts = 1;
  record.steps = 100;
  std::filesystem::create_directory(bench.folder / kA);
  REQUIRE(save_job_record(bench.folder.path(), record));
  keep_checkpoint(run_folder(bench.folder / kA, 1) / "checkpoints", 100);
  bench.open();
  bench.send(kB);
  bench.exits(bench.started().pid, 0);  // the other one is the first that starts
  CHECK(bench.runner->find(kA)->state == JobState::Finished);
}

TEST_CASE("one job too many is refused, and leaves nothing", "[job_runner]") {
  JobBench bench;
  bench.open(1);
  bench.send(kA);
  const auto first = bench.started();
  bench.send(kB);
  JobRecord record;
  record.id = kC;
  std::filesystem::create_directory(bench.folder / kC);
  const auto added = bench.runner->add(record);
  REQUIRE_FALSE(added);
  CHECK(added.error().code == ErrorCode::ResourceExhausted);
  CHECK_FALSE(bench.runner->find(kC));
  CHECK(load_job_records(bench.folder.path())->size() == 2);
  CHECK_FALSE(std::filesystem::exists(bench.folder / kC));
  bench.exits(first.pid, 0);
  bench.exits(bench.started().pid, 0);
}
