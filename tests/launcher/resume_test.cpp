#include "launcher/control/resume.h"

#include "checkpoint/folder.h"
#include "checkpoint/shard.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

void save(const std::filesystem::path& directory, std::int64_t step, const std::string& model = "model") {
  const auto folder = checkpoint::make_partial_folder(directory, step);
  REQUIRE(folder.has_value());
  checkpoint::PieceState state{checkpoint::whole_piece("w", {2}), {}};
  state.elements.fill({1, 2});
  auto shard = checkpoint::write_shard(*folder, "rank_0.safetensors", {state});
  REQUIRE(shard.has_value());
  checkpoint::Manifest manifest;
  manifest.progress.step = step;
  manifest.model_hash = model;
  manifest.shards = {*shard};
  REQUIRE(checkpoint::publish(directory, manifest).has_value());
}

ResumeRequest request(const std::filesystem::path& directory, const std::string& resume) {
  return {resume, directory, false, "model", 100, 1};
}

ErrorCode refusal(const ResumeRequest& request) {
  const auto point = find_resume_point(request);
  REQUIRE_FALSE(point.has_value());
  return point.error().code;
}

}  // namespace

TEST_CASE("a run goes on from the newest whole checkpoint, or begins") {
  TempDir folder;
  CHECK(find_resume_point(request(folder.path(), "auto"))->folder.empty());
  save(folder.path(), 10);
  save(folder.path(), 20);
  CHECK(find_resume_point(request(folder.path(), "auto"))->step == 20);
  std::filesystem::resize_file(folder / "step_20" / "rank_0.safetensors", 50);
  const auto point = find_resume_point(request(folder.path(), "auto"));
  CHECK(point->step == 10);
  CHECK(point->folder == folder / "step_10");
  CHECK(point->rejected.size() == 1);
  // Where all are damaged, it does not begin anew behind the user's back.
  std::filesystem::remove(folder / "step_10" / "rank_0.safetensors");
  CHECK(refusal(request(folder.path(), "auto")) == ErrorCode::DataLoss);
}

TEST_CASE("a run of several nodes asks them, whatever this one holds") {
  TempDir folder;
  ResumeRequest of_three = request(folder.path(), "auto");
  of_three.num_nodes = 3;
  CHECK(find_resume_point(of_three)->asks_nodes);  // this disk may be new
  save(folder.path(), 10);
  CHECK(find_resume_point(of_three)->asks_nodes);  // the others' disks may be new
  CHECK(find_resume_point(of_three)->step == 10);
  save(folder.path(), 20);
  std::filesystem::remove(folder / "step_20" / "rank_0.safetensors");
  CHECK(find_resume_point(of_three)->asks_nodes);
  CHECK(find_resume_point(of_three)->step == 10);
  std::filesystem::remove(folder / "step_10" / "rank_0.safetensors");
  CHECK(find_resume_point(of_three)->asks_nodes);
  CHECK(find_resume_point(of_three)->folder.empty());
  of_three.resume = "never";
  CHECK(refusal(of_three) == ErrorCode::AlreadyExists);
  CHECK_FALSE(find_resume_point(request(folder / "nowhere", "auto"))->asks_nodes);
}

TEST_CASE("a path names a checkpoint, a folder of them or a run") {
  TempDir run;
  TempDir own;
  save(run / "checkpoints", 10);
  save(run / "checkpoints", 20);
  CHECK(find_resume_point(request(own.path(), run.path()))->step == 20);
  CHECK(find_resume_point(request(own.path(), run / "checkpoints"))->step == 20);
  CHECK(find_resume_point(request(own.path(), run / "checkpoints" / "step_10"))->step == 10);
  CHECK(refusal(request(own.path(), own.path())) == ErrorCode::NotFound);
  CHECK(refusal(request(own.path(), own / "none")) == ErrorCode::NotFound);
}

TEST_CASE("what a run cannot go on from is refused") {
  TempDir folder;
  save(folder.path(), 100);
  CHECK(refusal(request(folder.path(), "auto")) == ErrorCode::InvalidArgument);  // all steps are taken
  TempDir other;
  save(other.path(), 10, "another model");
  CHECK(refusal(request(other.path(), "auto")) == ErrorCode::InvalidArgument);
  // What it would save stands below what is there.
  CHECK(refusal(request(other.path(), "never")) == ErrorCode::AlreadyExists);
  TempDir empty;
  CHECK(find_resume_point(request(empty.path(), "never"))->folder.empty());
}
