#include "checkpoint/spread.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

namespace {

Shard shard(const std::string& file, std::vector<Piece> pieces) {
  return {file, Bytes(8), std::string(64, 'a'), std::move(pieces)};
}

/// Rows of a 6 x 8 matrix, whole.
Piece rows(std::int64_t first, std::int64_t size) { return {"w", {6, 8}, {{{first, size}}, {{0, 8}}}, 0, 8 * size}; }

Manifest manifest_of(std::int64_t step, std::vector<Shard> shards) {
  Manifest manifest;
  manifest.progress.step = step;
  manifest.model_hash = "m";
  manifest.shards = std::move(shards);
  return manifest;
}

const std::vector<Shard>& three() {
  static const std::vector<Shard> shards = {shard("rank_0", {rows(0, 2)}), shard("rank_1", {rows(2, 2)}),
                                            shard("rank_2", {rows(4, 2), whole_piece("b", {5})})};
  return shards;
}

std::vector<std::string> files_of(const std::vector<Shard>& shards) {
  std::vector<std::string> files;
  for (const Shard& one : shards) files.push_back(one.file);
  return files;
}

}  // namespace

TEST_CASE("of what nodes hold, the newest that is whole is taken") {
  const std::string older = to_text(manifest_of(10, three())), newer = to_text(manifest_of(20, three()));
  const std::vector<HeldPart> parts = {
      {0, older, {"rank_0", "rank_2"}}, {1, older, {"rank_1", "rank_0"}}, {1, newer, {"rank_1", "rank_0"}}};
  SECTION("a shard of the newer one is nowhere") {
    const auto found = find_newest_spread(parts);
    REQUIRE(found);
    CHECK(found->manifest.progress.step == 10);
    CHECK(found->text == older);
    CHECK(found->holders.at("rank_0") == std::vector<int>{0, 1});
    CHECK(found->holders.at("rank_1") == std::vector<int>{1});
    CHECK(found->holders.at("rank_2") == std::vector<int>{0});
  }
  SECTION("a third node has it") {
    auto more = parts;
    more.push_back({2, newer, {"rank_2"}});
    const auto found = find_newest_spread(more);
    REQUIRE(found);
    CHECK(found->manifest.progress.step == 20);
  }
  SECTION("shards of a step that was saved under another plan do not make it whole") {
    auto more = parts;
    Manifest other = manifest_of(20, three());
    other.plan_hash = "another";
    more.push_back({2, to_text(other), {"rank_2"}});
    CHECK(find_newest_spread(more)->manifest.progress.step == 10);
  }
  SECTION("what is no manifest is left out") {
    auto more = parts;
    more.push_back({2, newer + " ", {"rank_0", "rank_1", "rank_2"}});
    CHECK(find_newest_spread(more)->manifest.progress.step == 10);
  }
  CHECK_FALSE(find_newest_spread({parts[2]}));
  CHECK_FALSE(find_newest_spread({}));
}

TEST_CASE("a rank needs the shards that hold an element of its pieces, and no others") {
  const Manifest manifest = manifest_of(10, three());
  CHECK(files_of(needed_shards(manifest, {rows(1, 2)})) == std::vector<std::string>{"rank_0", "rank_1"});
  CHECK(files_of(needed_shards(manifest, {rows(5, 1)})) == std::vector<std::string>{"rank_2"});
  CHECK(files_of(needed_shards(manifest, {whole_piece("b", {5})})) == std::vector<std::string>{"rank_2"});
  // Columns cut every row.
  CHECK(needed_shards(manifest, {{"w", {6, 8}, {{{0, 6}}, {{0, 1}}}, 0, 6}}).size() == 3);
  CHECK(needed_shards(manifest, {{"w", {6, 8}, {{{0, 6}}, {{0, 1}}}, 0, 2}}).size() == 1);  // of them the first two
  CHECK(needed_shards(manifest, {}).empty());
}
