#include "checkpoint/export_weights.h"

#include <cstring>
#include <fstream>

#include "checkpoint/folder.h"
#include "checkpoint/shard.h"
#include "common/bytes_io.h"
#include "model/safetensors.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

namespace {

namespace fs = std::filesystem;

/// A piece whose elements are their places in the whole, plus `offset`; moments are other numbers.
PieceState state_of(Piece piece, float offset) {
  PieceState state{std::move(piece), {}};
  for (const FlatRun& run : flat_runs(state.piece)) {
    for (std::int64_t i = 0; i < run.count; ++i) {
      state.elements[0].push_back(offset + static_cast<float>(run.whole + i));
      state.elements[1].push_back(-1);
      state.elements[2].push_back(-2);
    }
  }
  return state;
}

/// A 4 x 3 matrix in two pieces of columns, over two ranks, and two vectors.
Manifest save(const fs::path& folder) {
  const Piece left{"net.w", {4, 3}, {{{0, 4}}, {{0, 2}}}, 0, 8}, right{"net.w", {4, 3}, {{{0, 4}}, {{2, 1}}}, 0, 4};
  Manifest manifest;
  manifest.shards.push_back(
      *write_shard(folder, "rank_0", {state_of(left, 100), state_of(whole_piece("net.b", {5}), 200)}));
  manifest.shards.push_back(
      *write_shard(folder, "rank_1", {state_of(right, 100), state_of(whole_piece("net.c", {2}), 300)}));
  return manifest;
}

std::vector<float> values_of(const model::StoredTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.size.value) / sizeof(float));
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

}  // namespace

TEST_CASE("parameters leave a checkpoint whole, whatever pieces they were saved in") {
  TempDir folder, out;
  const Manifest manifest = save(folder.path());
  const auto exported = export_weights(folder.path(), manifest, out.path(), {});
  REQUIRE(exported);
  CHECK(exported->files == std::vector<std::string>{"model.safetensors"});
  CHECK(exported->num_parameters == 3);
  CHECK(exported->num_elements == 12 + 5 + 2);
  const auto file = model::SafetensorsFile::open(out / "model.safetensors");
  REQUIRE(file);
  REQUIRE(file->tensors().size() == 3);
  const auto& matrix = file->tensors().at("net.w");
  CHECK(matrix.dims == std::vector<std::int64_t>{4, 3});
  CHECK(values_of(matrix) == std::vector<float>{100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111});
  CHECK(values_of(file->tensors().at("net.b")) == std::vector<float>{200, 201, 202, 203, 204});
  CHECK(read_file(out / "model.safetensors")->find("\"format\":\"pt\"") != std::string::npos);  // transformers asks
}

TEST_CASE("a first part that all names share is left out on request") {
  TempDir folder, out;
  const auto exported = export_weights(folder.path(), save(folder.path()), out.path(), {true, Bytes(1 << 20)});
  REQUIRE(exported);
  CHECK(exported->stripped == "net.");
  CHECK(model::SafetensorsFile::open(out / "model.safetensors")->tensors().contains("w"));
  SECTION("one name differs") {
    TempDir other, there;
    Manifest manifest;
    manifest.shards.push_back(*write_shard(
        other.path(), "rank_0", {state_of(whole_piece("net.w", {2}), 0), state_of(whole_piece("head", {2}), 0)}));
    CHECK(export_weights(other.path(), manifest, there.path(), {true, Bytes(1 << 20)})->stripped.empty());
  }
}

TEST_CASE("what is more than a file may hold goes into several, with an index") {
  TempDir folder, out;
  // 20 bytes of b and 8 of c fit into 30; 48 of w are more, and go alone.
  const auto exported = export_weights(folder.path(), save(folder.path()), out.path(), {false, Bytes(30)});
  REQUIRE(exported);
  CHECK(exported->files == std::vector<std::string>{"model-00001-of-00002.safetensors",
                                                    "model-00002-of-00002.safetensors",
                                                    "model.safetensors.index.json"});
  CHECK(model::SafetensorsFile::open(out / "model-00001-of-00002.safetensors")->tensors().size() == 2);
  CHECK(model::SafetensorsFile::open(out / "model-00002-of-00002.safetensors")->tensors().contains("net.w"));
  const auto index = parse_json(*read_file(out / "model.safetensors.index.json"));
  REQUIRE(index);
  CHECK((*index)["metadata"]["total_size"] == Json(76));
  CHECK((*index)["weight_map"]["net.c"] == Json("model-00001-of-00002.safetensors"));
  CHECK((*index)["weight_map"]["net.w"] == Json("model-00002-of-00002.safetensors"));
}

TEST_CASE("a parameter of which an element is missing is an error") {
  TempDir folder, out;
  Manifest manifest = save(folder.path());
  manifest.shards.pop_back();
  const auto exported = export_weights(folder.path(), manifest, out.path(), {});
  REQUIRE_FALSE(exported);
  CHECK(exported.error().code == ErrorCode::DataLoss);
}
