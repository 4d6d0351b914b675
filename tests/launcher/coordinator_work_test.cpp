#include "launcher/control/coordinator_work.h"

#include "checkpoint/folder.h"
#include "checkpoint/shard.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

struct Desk {
  CoordinatorStart start;
  std::optional<Job> job = Job{};
  std::optional<MeasuredBefore> before;
  EventQueue<WorkDone> events;
  CoordinatorWork work{start, job, before, [this](WorkDone done) { events.push(std::move(done)); }};

  template <class Kind>
  Kind next() {
    auto event = events.pop(after(steady_clock().now(), 20));
    REQUIRE(event);
    REQUIRE(std::holds_alternative<Kind>(*event));
    return std::move(std::get<Kind>(*event));
  }
};

/// The whole of parameter p, written by one rank.
checkpoint::Manifest write_step(const std::filesystem::path& directory, std::int64_t step) {
  checkpoint::Manifest manifest;
  manifest.progress.step = step;
  const auto folder = checkpoint::make_partial_folder(directory, step);
  REQUIRE(folder);
  const auto piece = checkpoint::whole_piece("p", {2});
  manifest.shards.push_back(*checkpoint::write_shard(*folder, "rank_0", {{piece, {{{1, 2}, {3, 4}, {5, 6}}}}}));
  return manifest;
}

}  // namespace

TEST_CASE("checkpoints are published one after the other, and the newest that is whole is found",
          "[coordinator_work]") {
  TempDir directory;
  Desk desk;
  desk.start.checkpoint_directory = directory.path();
  desk.start.resume_from = "begun_with";
  desk.start.resume_step = 3;
  desk.job->checkpoint.keep = 2;

  desk.work.find_recovery();
  const auto none = desk.next<RecoveryPoint>();
  CHECK(none.folder == "begun_with");
  CHECK(none.step == 3);

  for (const std::int64_t step : {5, 10, 15}) desk.work.publish(write_step(directory.path(), step));
  for (const std::int64_t step : {5, 10, 15}) {
    const auto published = desk.next<Publication>();
    CHECK(published.step == step);
    CHECK_FALSE(published.error);
  }
  CHECK_FALSE(std::filesystem::exists(checkpoint::folder_of(directory.path(), 5)));  // of three, two are kept

  std::filesystem::remove(checkpoint::folder_of(directory.path(), 15) / checkpoint::kManifestFile);
  desk.work.find_recovery();
  const auto found = desk.next<RecoveryPoint>();
  CHECK(found.step == 10);
  CHECK(found.folder == checkpoint::folder_of(directory.path(), 10).string());
  CHECK(found.rejected.size() == 1);

  RecoveryPoint in_memory;
  in_memory.step = 17;
  in_memory.memory = StepInMemory{2, {17, 136, 8, 3, 1, 1}};
  const auto known = recovery_point_from_json(to_json(in_memory));  // as the journal keeps it
  REQUIRE(known);
  CHECK(known->step == 17);
  CHECK(known->memory == in_memory.memory);

  checkpoint::Manifest missing = write_step(directory.path(), 20);
  missing.shards.front().file = "rank_7";
  desk.work.publish(missing);
  const auto refused = desk.next<Publication>();
  CHECK(refused.step == 20);
  REQUIRE(refused.error);
  CHECK(refused.error->code == ErrorCode::DataLoss);
}

TEST_CASE("a search that fails, or is not needed, is answered under its number", "[coordinator_work]") {
  TempDir directory;
  Desk desk;
  desk.start.pt2 = directory.path() / "missing.pt2";
  desk.work.choose(4, {}, "host", std::nullopt);
  const auto failed = desk.next<PlanReady>();
  CHECK(failed.search == 4);
  CHECK_FALSE(failed.choice->has_value());

  LookRequest request;
  request.generation = 2;
  desk.work.look(request, {});
  const auto looked = desk.next<LookReady>();
  CHECK(looked.generation == 2);
  REQUIRE(looked.made->has_value());
  CHECK((*looked.made)->differences.findings.empty());

  desk.start.mode = RunMode::Check;
  desk.work.choose(5, {}, "host", std::nullopt);
  const auto checked = desk.next<PlanReady>();
  CHECK(checked.search == 5);
  CHECK(checked.choice->has_value());
}
