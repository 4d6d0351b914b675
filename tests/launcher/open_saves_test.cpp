#include "launcher/control/open_saves.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

checkpoint::Shard shard(const std::string& file) { return {file, Bytes(1), "sum", {}}; }

}  // namespace

TEST_CASE("a checkpoint is complete when every rank has told, in the order of ranks", "[open_saves]") {
  OpenSaves saves;
  CHECK_FALSE(saves.add(1, 2, {5}, shard("b"), Seconds(0.25)));
  // The next one begins before all have told of this one.
  CHECK_FALSE(saves.add(1, 2, {10}, shard("d")));
  const auto complete = saves.add(0, 2, {5}, shard("a"), Seconds(0.125));
  REQUIRE(complete);
  CHECK(complete->progress.step == 5);
  REQUIRE(complete->shards.size() == 2);
  CHECK(complete->shards[0].file == "a");
  CHECK(complete->shards[1].file == "b");
  CHECK_FALSE(complete->error);
  // Until it is published it stays open.
  CHECK(saves.copy(5) == Seconds(0.25));
  CHECK(saves.close(5));
  CHECK(saves.copy(5) == Seconds(0));
  CHECK_FALSE(saves.close(5));
  CHECK_FALSE(saves.empty());
  saves.clear();
  CHECK(saves.empty());
}

TEST_CASE("a checkpoint that a rank could not write is told once all have", "[open_saves]") {
  OpenSaves saves;
  CHECK_FALSE(saves.add(0, 3, {5}, Error{ErrorCode::FailedPrecondition, "no space", "disk", "", "", ""}));
  CHECK_FALSE(saves.add(2, 3, {5}, Error{ErrorCode::FailedPrecondition, "no folder", "disk", "", "", ""}));
  const auto complete = saves.add(1, 3, {5}, shard("b"));
  REQUIRE(complete);
  REQUIRE(complete->error);
  CHECK(complete->error->message == "no space");
}
