#include "checkpoint/folder.h"

#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <fstream>
#include <thread>

#include "checkpoint/reader.h"
#include "checkpoint/shard.h"
#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

namespace {

namespace fs = std::filesystem;

/// Each element is its place in the whole, with the state in the thousands and `offset` on top.
float element_of(State state, std::int64_t whole, int offset) {
  return static_cast<float>(whole + 1000 * static_cast<int>(state) + 10000 * offset);
}

PieceState state_of(Piece piece, int offset = 0) {
  PieceState state{std::move(piece), {}};
  for (const State kind : kStates)
    for (const FlatRun& run : flat_runs(state.piece))
      for (std::int64_t i = 0; i < run.count; ++i)
        state.elements[static_cast<std::size_t>(kind)].push_back(element_of(kind, run.whole + i, offset));
  return state;
}

Piece part(std::vector<plan::Cut::Run> rows, std::vector<plan::Cut::Run> columns, std::int64_t first,
           std::int64_t count) {
  return {"w", {6, 8}, {std::move(rows), std::move(columns)}, first, count};
}

/// By rank: what it holds of a 6 x 8 matrix and a vector.
const std::vector<std::vector<std::vector<Piece>>>& layouts() {
  static const std::vector<std::vector<std::vector<Piece>>> all = {
      {{whole_piece("w", {6, 8}), whole_piece("b", {5})}},
      // Columns over two, in two runs each.
      {{part({{0, 6}}, {{0, 2}, {4, 2}}, 0, 24), whole_piece("b", {5})}, {part({{0, 6}}, {{2, 2}, {6, 2}}, 0, 24)}},
      // Rows over two of unequal size, each half of its rows over two more.
      {{part({{0, 4}}, {{0, 8}}, 0, 16), Piece{"b", {5}, {}, 0, 2}},
       {part({{0, 4}}, {{0, 8}}, 16, 16), Piece{"b", {5}, {}, 2, 3}},
       {part({{4, 2}}, {{0, 8}}, 0, 9)},
       {part({{4, 2}}, {{0, 8}}, 9, 7)}}};
  return all;
}

Manifest save(const fs::path& directory, std::int64_t step, const std::vector<std::vector<Piece>>& layout,
              int offset = 0) {
  const auto folder = make_partial_folder(directory, step);
  REQUIRE(folder);
  Manifest manifest;
  manifest.progress.step = step;
  manifest.model_hash = "m";
  for (std::size_t rank = 0; rank < layout.size(); ++rank) {
    std::vector<PieceState> states;
    for (const Piece& piece : layout[rank]) states.push_back(state_of(piece, offset));
    const auto shard = write_shard(*folder, "rank_" + std::to_string(rank) + ".safetensors", states);
    REQUIRE(shard);
    manifest.shards.push_back(*shard);
  }
  return manifest;
}

void publish_step(const fs::path& directory, std::int64_t step, const std::vector<std::vector<Piece>>& layout,
                  int offset = 0) {
  REQUIRE(publish(directory, save(directory, step, layout, offset)));
}

std::vector<float> read(const Found& found, State state, const Piece& piece) {
  const auto reader = Reader::open(found.folder, found.manifest);
  REQUIRE(reader);
  std::vector<float> elements(static_cast<std::size_t>(piece.count), -1);
  REQUIRE(reader->read(state, piece, elements));
  return elements;
}

void flip_byte(const fs::path& file, std::int64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const char byte = static_cast<char>(stream.get() ^ 0x10);
  stream.seekp(at);
  stream.put(byte);
}

std::int64_t size_of_file(const fs::path& file) { return static_cast<std::int64_t>(fs::file_size(file)); }

}  // namespace

TEST_CASE("what one layout saved, every other reads") {
  for (const auto& saved : layouts()) {
    TempDir directory;
    publish_step(directory.path(), 7, saved);
    const Search search = find_newest(directory.path());
    REQUIRE(search.newest);
    CHECK(search.rejected.empty());
    CHECK(search.newest->manifest.progress.step == 7);
    for (const auto& loaded : layouts())
      for (const auto& rank : loaded)
        for (const Piece& piece : rank)
          for (const State state : kStates)
            CHECK(read(*search.newest, state, piece) == state_of(piece).elements[static_cast<std::size_t>(state)]);
  }
}

TEST_CASE("a shard of whole parameters is a plain safetensors file") {
  TempDir directory;
  publish_step(directory.path(), 1, layouts()[0]);
  const auto file = model::SafetensorsFile::open(folder_of(directory.path(), 1) / "rank_0.safetensors");
  REQUIRE(file);
  CHECK(file->tensors().at("values/w").dims == std::vector<std::int64_t>{6, 8});
  CHECK(file->tensors().at("second_moment/b").dims == std::vector<std::int64_t>{5});
}

TEST_CASE("what is asked of a checkpoint that it does not have is named") {
  TempDir directory;
  publish_step(directory.path(), 1, layouts()[0]);
  const Search search = find_newest(directory.path());
  const auto reader = Reader::open(search.newest->folder, search.newest->manifest);
  REQUIRE(reader);
  std::vector<float> elements(5);
  CHECK(reader->read(State::Values, whole_piece("c", {5}), elements).error().code == ErrorCode::NotFound);
  CHECK(reader->read(State::Values, whole_piece("b", {5, 1}), elements).error().code == ErrorCode::DataLoss);
}

TEST_CASE("every flipped byte, cut or missing file is seen, and the older checkpoint is taken") {
  TempDir directory;
  publish_step(directory.path(), 1, layouts()[2]);
  publish_step(directory.path(), 2, layouts()[2]);
  const fs::path newer = folder_of(directory.path(), 2), kept = directory / "kept";
  fs::copy(newer, kept);
  const auto restore = [&] {
    fs::remove_all(newer);
    fs::copy(kept, newer);
  };
  const auto expect_older = [&](const std::string& what) {
    INFO(what);
    const Search search = find_newest(directory.path());
    REQUIRE(search.newest);
    CHECK(search.newest->manifest.progress.step == 1);
    CHECK(search.rejected.size() == 1);
    restore();
  };
  std::vector<std::string> files{kManifestFile};
  for (int rank = 0; rank < 4; ++rank) files.push_back("rank_" + std::to_string(rank) + ".safetensors");
  for (const std::string& file : files) {
    const std::int64_t size = size_of_file(newer / file);
    for (std::int64_t at = 0; at < size; at += 37) {
      flip_byte(newer / file, at);
      expect_older(file + ", byte " + std::to_string(at));
      fs::resize_file(newer / file, static_cast<std::uintmax_t>(at));
      expect_older(file + ", cut at " + std::to_string(at));
    }
    fs::remove(newer / file);
    expect_older(file + " is gone");
  }
  // One of another step under this name.
  fs::remove_all(newer);
  fs::copy(folder_of(directory.path(), 1), newer);
  expect_older("another step's");
  CHECK(find_newest(directory.path()).newest->manifest.progress.step == 2);
}

TEST_CASE("a checkpoint is not there before it is published, nor with less than all") {
  TempDir directory;
  Manifest manifest = save(directory.path(), 5, layouts()[1]);
  CHECK_FALSE(find_newest(directory.path()).newest);
  Manifest less = manifest;
  less.shards.pop_back();
  CHECK(publish(directory.path(), less).error().code == ErrorCode::DataLoss);
  Manifest longer = manifest;
  longer.shards[0].size += Bytes(1);
  CHECK(publish(directory.path(), longer).error().code == ErrorCode::DataLoss);
  CHECK_FALSE(find_newest(directory.path()).newest);
  REQUIRE(publish(directory.path(), manifest));
  CHECK(find_newest(directory.path()).newest->manifest == manifest);
  CHECK(find_newest(directory / "none").newest.has_value() == false);
}

TEST_CASE("a step that is saved again takes the old one's place") {
  TempDir directory;
  publish_step(directory.path(), 3, layouts()[0], 0);
  publish_step(directory.path(), 3, layouts()[1], 1);
  const Search search = find_newest(directory.path());
  REQUIRE(search.newest);
  CHECK(read(*search.newest, State::Values, whole_piece("b", {5})) == state_of(whole_piece("b", {5}), 1).elements[0]);
  CHECK(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("what is published already may be published again, by whoever did not hear of it") {
  TempDir directory;
  const Manifest manifest = save(directory.path(), 3, layouts()[1]);
  REQUIRE(publish(directory.path(), manifest));
  REQUIRE(publish(directory.path(), manifest));
  CHECK(find_newest(directory.path()).newest->manifest == manifest);
  Manifest other = manifest;
  other.plan_hash = "another";
  CHECK_FALSE(publish(directory.path(), other));
  CHECK(find_newest(directory.path()).newest->manifest == manifest);
}

TEST_CASE("the newest are kept") {
  TempDir directory;
  for (const std::int64_t step : {9, 10, 11}) publish_step(directory.path(), step, layouts()[0]);
  static_cast<void>(save(directory.path(), 8, layouts()[0]));
  static_cast<void>(save(directory.path(), 12, layouts()[0]));
  fs::create_directory(directory / "step_of_mine");
  REQUIRE(prune(directory.path(), 2, 11));
  for (const char* name : {"step_10", "step_11", "step_12.partial", "step_of_mine"})
    CHECK(fs::exists(directory / name));
  CHECK(std::distance(fs::directory_iterator(directory.path()), fs::directory_iterator()) == 4);
}

TEST_CASE("later checkpoints, which a run went back past, take no place of those that are kept") {
  TempDir directory;
  for (const std::int64_t step : {8, 9, 20}) publish_step(directory.path(), step, layouts()[0]);
  REQUIRE(prune(directory.path(), 1, 9));
  CHECK(fs::exists(directory / "step_9"));
  CHECK(fs::exists(directory / "step_20"));
  CHECK_FALSE(fs::exists(directory / "step_8"));
}

TEST_CASE("a disk that is full leaves no shard behind") {
  TempDir directory;
  // A limit on a file's size fails as a full disk does: a write that ends early, then an error.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{200, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const auto shard = write_shard(directory.path(), "rank_0.safetensors", {state_of(whole_piece("w", {6, 8}))});
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  REQUIRE_FALSE(shard);
  CHECK(shard.error().code == ErrorCode::FailedPrecondition);
  CHECK(fs::is_empty(directory.path()));
}

TEST_CASE("a node's part is published without the shards of others, and says what it holds") {
  TempDir directory;
  const Manifest manifest = save(directory.path(), 7, layouts()[2]);
  const fs::path partial = directory.path() / "step_7.partial";
  fs::remove(partial / "rank_1.safetensors");
  fs::remove(partial / "rank_3.safetensors");
  CHECK_FALSE(publish(directory.path(), manifest));
  const std::vector<std::string> here = {"rank_0.safetensors", "rank_2.safetensors"};
  for (int time = 0; time < 2; ++time) {  // whoever was killed in between does it again
    const auto files = publish_part(directory.path(), manifest);
    REQUIRE(files);
    CHECK(*files == here);
  }
  CHECK_FALSE(fs::exists(partial));
  const auto parts = list_parts(directory.path());
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].manifest == to_text(manifest));
  CHECK(parts[0].files == here);
  CHECK(find_newest(directory.path()).rejected.size() == 1);  // no whole checkpoint
  // One byte that is not as it was written.
  flip_byte(directory.path() / "step_7" / "rank_2.safetensors", 200);
  CHECK(list_parts(directory.path())[0].files == std::vector<std::string>{"rank_0.safetensors"});
  // A shard of another size came torn, or an attempt before this one left it: it goes, with all else of that attempt.
  const Manifest next = save(directory.path(), 8, layouts()[2]);
  const fs::path again = directory.path() / "step_8.partial";
  fs::resize_file(again / "rank_0.safetensors", 100);
  fs::copy_file(again / "rank_1.safetensors", again / "rank_9.safetensors");
  const auto left = publish_part(directory.path(), next);
  REQUIRE(left);
  CHECK(*left == std::vector<std::string>{"rank_1.safetensors", "rank_2.safetensors", "rank_3.safetensors"});
  CHECK_FALSE(fs::exists(directory.path() / "step_8" / "rank_0.safetensors"));
  CHECK_FALSE(fs::exists(directory.path() / "step_8" / "rank_9.safetensors"));
  fs::remove_all(directory.path() / "step_8");
  // A node that holds nothing of it takes part all the same.
  TempDir empty;
  REQUIRE(publish_part(empty.path(), manifest));
  REQUIRE(list_parts(empty.path()).size() == 1);
  CHECK(list_parts(empty.path())[0].files.empty());
  // Newest first; a folder under another step's name is none.
  publish_step(empty.path(), 9, layouts()[0]);
  fs::rename(empty.path() / "step_7", empty.path() / "step_6");
  CHECK(list_parts(empty.path()).size() == 1);
  CHECK(list_parts(empty.path() / "nowhere").empty());
}

TEST_CASE("nodes that publish their parts into one folder after all lose nothing") {
  for (int attempt = 0; attempt < 20; ++attempt) {
    TempDir directory;
    const Manifest manifest = save(directory.path(), 7, layouts()[2]);
    std::vector<std::jthread> nodes;
    std::atomic<int> published{0};
    for (int node = 0; node < 4; ++node)
      nodes.emplace_back([&] { published += publish_part(directory.path(), manifest).has_value() ? 1 : 0; });
    nodes.clear();  // joins
    CHECK(published == 4);
    CHECK(verify(directory.path() / "step_7"));
  }
}
