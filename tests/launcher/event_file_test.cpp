#include "launcher/control/event_file.h"

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

std::string to_hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(c));
    hex += digits;
  }
  return hex;
}

}  // namespace

TEST_CASE("the bytes are those of TensorBoard's own writer", "[event_file]") {
  const TempDir folder;
  EventFile file(folder / "tensorboard", "2026-01-02T03:04:05.500Z");
  REQUIRE(file.add(7, "2026-01-02T03:04:06.250Z", {{"loss", 5.5}, {"step_seconds", 0.25}}));
  CHECK(file.file().filename() == "events.out.tfevents.1767323045.coxswain.0");
  const auto bytes = read_file(file.file());
  REQUIRE(bytes);
  // tensorboard 2.21.0: RecordWriter, with an Event of the same file_version, wall_time, step and simple_value.
  CHECK(
      to_hex(*bytes) ==
      "1800000000000000a37f4b220900006069cd55da411a0d627261696e2e4576656e743a32fd0d12432f000000000000006d5d1d5009000090"
      "69cd55da4110072a220a0b0a046c6f7373150000b0400a130a0c737465705f7365636f6e6473150000803e98cbde86");
}

TEST_CASE("a coordinator that was restarted within a second has a file of its own", "[event_file]") {
  const TempDir folder;
  const std::string now = "2026-01-02T03:04:05.500Z";
  EventFile first(folder.path(), now);
  REQUIRE(first.add(1, now, {{"loss", 1}}));
  const EventFile second(folder.path(), now);
  CHECK(second.file().filename() == "events.out.tfevents.1767323045.coxswain.1");
}

TEST_CASE("a disk that refuses says so", "[event_file]") {
  const TempDir folder;
  REQUIRE(write_file(folder / "tensorboard", "no folder"));
  EventFile file(folder / "tensorboard", "2026-01-02T03:04:05.500Z");
  CHECK_FALSE(file.add(1, "2026-01-02T03:04:05.500Z", {{"loss", 1}}));
}
