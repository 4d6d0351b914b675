#include "launcher/control/checkpoint_keeper.h"

#include "checkpoint/folder.h"
#include "checkpoint/shard.h"
#include "common/clock.h"
#include "launcher/control/liveness.h"
#include "proto/control.pb.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>
#include <fstream>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

/// Two ranks' shards, of which this node has the first.
checkpoint::Manifest write_part(const std::filesystem::path& directory, std::int64_t step) {
  checkpoint::Manifest manifest;
  manifest.progress.step = step;
  const auto folder = checkpoint::make_partial_folder(directory, step);
  REQUIRE(folder);
  const auto piece = checkpoint::whole_piece("p", {2});
  manifest.shards.push_back(*checkpoint::write_shard(*folder, "rank_0", {{piece, {{{1, 2}, {3, 4}, {5, 6}}}}}));
  manifest.shards.push_back({"rank_1", Bytes(7), std::string(64, 'a'), {checkpoint::whole_piece("q", {3})}});
  return manifest;
}

std::string store_command(const std::filesystem::path& directory, const checkpoint::Manifest& manifest) {
  control::AgentCommand command;
  command.mutable_store()->set_directory(directory.string());
  command.mutable_store()->set_manifest(to_text(manifest));
  return command.SerializeAsString();
}

}  // namespace

TEST_CASE("a node keeps its newest parts and tells what it holds", "[checkpoint_keeper]") {
  TempDir directory;
  EventQueue<std::string> reports;
  CheckpointKeeper keeper([&](std::string report) { reports.push(std::move(report)); });
  const auto next_report = [&] {
    const auto bytes = reports.pop(after(steady_clock().now(), 20));
    REQUIRE(bytes);
    control::AgentReport report;
    REQUIRE(report.ParseFromString(*bytes));
    return report;
  };
  std::vector<std::string> manifests;
  for (const std::int64_t step : {5, 10, 15}) {
    const checkpoint::Manifest manifest = write_part(directory.path(), step);
    manifests.push_back(to_text(manifest));
    CHECK(keeper.take(store_command(directory.path(), manifest)));
    const auto report = next_report();
    CHECK(report.stored().step() == step);
    CHECK(report.stored().error_json().empty());
    REQUIRE(report.stored().files_size() == 1);
    CHECK(report.stored().files(0) == "rank_0");
  }
  control::AgentCommand prune;
  prune.mutable_prune()->set_directory(directory.path().string());
  prune.mutable_prune()->set_keep(2);
  prune.mutable_prune()->set_step(15);
  CHECK(keeper.take(prune.SerializeAsString()));
  control::AgentCommand list;
  list.mutable_list()->set_directory(directory.path().string());
  list.mutable_list()->set_generation(7);
  CHECK(keeper.take(list.SerializeAsString()));
  const auto report = next_report();
  CHECK(report.listed().generation() == 7);
  REQUIRE(report.listed().parts_size() == 2);  // of three, two are kept
  CHECK(report.listed().parts(0).manifest() == manifests[2]);
  CHECK(report.listed().parts(1).manifest() == manifests[1]);
  REQUIRE(report.listed().parts(0).files_size() == 1);
  CHECK(report.listed().parts(0).files(0) == "rank_0");

  control::AgentCommand other;
  other.mutable_save();
  CHECK_FALSE(keeper.take(other.SerializeAsString()));
}

TEST_CASE("a shard that came torn is not held, a part that cannot be put in its place is told", "[checkpoint_keeper]") {
  TempDir directory;
  const checkpoint::Manifest manifest = write_part(directory.path(), 5);
  std::filesystem::resize_file(directory.path() / "step_5.partial" / "rank_0", 10);
  control::AgentReport report;
  REQUIRE(report.ParseFromString(keep_checkpoints(store_command(directory.path(), manifest))));
  CHECK(report.stored().step() == 5);
  CHECK(report.stored().error_json().empty());
  CHECK(report.stored().files_size() == 0);
  // A file where the folder should be.
  const std::filesystem::path file = directory.path() / "file";
  std::ofstream(file) << "x";
  REQUIRE(report.ParseFromString(keep_checkpoints(store_command(file, manifest))));
  CHECK(report.stored().error_json().find("cannot make") != std::string::npos);
}
