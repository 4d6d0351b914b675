#include "checkpoint/manifest.h"

#include "common/hash.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

namespace {

Manifest manifest() {
  Piece part{"layer.weight", {4, 6}, {{{0, 4}}, {{0, 2}, {4, 2}}}, 3, 9};
  Piece rest = whole_piece("layer.bias", {6});
  Manifest manifest;
  manifest.progress = {50, 1600, 0.125, 7, 2, 1};
  manifest.seed = 18446744073709551615u;
  manifest.model_hash = "m1";
  manifest.plan_hash = "p1";
  manifest.shards = {{"rank_0.safetensors", Bytes(300), std::string(64, 'a'), {part}},
                     {"rank_1.safetensors", Bytes(7), std::string(64, 'b'), {rest}}};
  return manifest;
}

/// A shard's JSON with one member set to something else.
Result<Shard> with(const std::string& member, Json value) {
  Json json = to_json(manifest().shards[0]);
  if (json.object().count(member) > 0)
    json[member] = std::move(value);
  else
    json["pieces"].array()[0][member] = std::move(value);
  return shard_from_json(json);
}

}  // namespace

TEST_CASE("a manifest is read as it was written") {
  const auto read = parse_manifest(to_text(manifest()));
  REQUIRE(read);
  CHECK(*read == manifest());
}

TEST_CASE("no flipped bit of a manifest goes unseen") {
  const std::string text = to_text(manifest());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      const auto read = parse_manifest(flipped);
      REQUIRE_FALSE(read);
      CHECK(read.error().code == ErrorCode::DataLoss);
    }
    CHECK_FALSE(parse_manifest(text.substr(0, i)));
  }
}

TEST_CASE("a shard's record is refused where a piece is not inside its parameter") {
  CHECK(with("file", "rank_0.safetensors"));
  for (const char* name : {"", "../rank_0", "a/b", ".hidden"}) CHECK_FALSE(with("file", name));
  CHECK_FALSE(with("bytes", -1));
  CHECK_FALSE(with("dims", JsonArray{4}));
  CHECK_FALSE(with("dims", JsonArray{-4, 6}));
  CHECK_FALSE(with("dims", JsonArray{std::int64_t{1} << 40, std::int64_t{1} << 40}));
  CHECK_FALSE(with("first", 17));
  CHECK_FALSE(with("count", 14));
  CHECK(with("count", 13));
  const auto rows = [](JsonArray runs) { return JsonArray{JsonArray{JsonArray{0, 4}}, std::move(runs)}; };
  CHECK(with("rows", rows({JsonArray{0, 6}})));
  CHECK_FALSE(with("rows", rows({JsonArray{1, 6}})));
  CHECK_FALSE(with("rows", rows({JsonArray{4, 2}, JsonArray{0, 2}})));
  CHECK_FALSE(with("rows", rows({JsonArray{0, 3}, JsonArray{2, 2}})));
  CHECK_FALSE(with("rows", rows({JsonArray{0}})));
  CHECK_FALSE(with("unknown", 1));
}

TEST_CASE("a parameter that no shards hold whole is named with its first missing element") {
  const auto piece = [](std::int64_t first, std::int64_t count) { return Piece{"w", {10}, {}, first, count}; };
  CHECK(check_complete({{"a", Bytes(0), "", {piece(0, 4)}}, {"b", Bytes(0), "", {piece(3, 7)}}}));
  const auto missing = check_complete({{"a", Bytes(0), "", {piece(0, 4)}}, {"b", Bytes(0), "", {piece(5, 5)}}});
  REQUIRE_FALSE(missing);
  CHECK(missing.error().path == "w");
  CHECK(missing.error().got == "none for element 4");
  CHECK_FALSE(check_complete({{"a", Bytes(0), "", {piece(0, 10), whole_piece("w", {11})}}}));
}
