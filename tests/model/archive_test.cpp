// The zip reader against archives made by Python's zipfile and PyTorch (make_fixtures.py).
#include "model/archive.h"

#include <cstring>

#include "common/bytes_io.h"
#include "common/env.h"
#include "model/load.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::model;

namespace {
std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(env("COX_BINARY_DIR").value_or(".")) / "fixtures" / name;
}
}  // namespace

TEST_CASE("a stored entry's bytes stand at its offset in the file", "[archive]") {
  const auto archive = Archive::open(fixture("gpt.pt2"));
  REQUIRE(archive.has_value());
  const auto whole = read_file(fixture("gpt.pt2"));
  REQUIRE(whole.has_value());
  int compared = 0;
  for (const auto& [name, entry] : archive->entries()) {
    const auto offset = archive->data_offset(name);
    const auto content = archive->read(name, 1 << 30);
    REQUIRE(offset.has_value());
    REQUIRE(content.has_value());
    CHECK(static_cast<std::int64_t>(content->size()) == entry.size);
    CHECK(whole->compare(static_cast<std::size_t>(*offset), content->size(), *content) == 0);
    ++compared;
  }
  CHECK(compared > 20);
}

TEST_CASE("content is held to its checksum and to the caller's limit", "[archive]") {
  const auto archive = Archive::open(fixture("bad_crc.pt2"));
  REQUIRE(archive.has_value());
  const auto read = archive->read("gpt/models/model.json", 1 << 30);
  REQUIRE_FALSE(read.has_value());
  CHECK(read.error().code == ErrorCode::DataLoss);
  CHECK(read.error().message.find("CRC") != std::string::npos);
  const auto limited = archive->read("gpt/data/weights/weight_0", 10);
  REQUIRE_FALSE(limited.has_value());
  CHECK(limited.error().code == ErrorCode::DataLoss);
  CHECK(limited.error().expected == "at most 10 bytes");
}

TEST_CASE("a missing entry and a missing file are not found", "[archive]") {
  CHECK(read_archive_entry(fixture("gpt.pt2"), "gpt/nothing").error().code == ErrorCode::NotFound);
  CHECK(read_archive_entry(fixture("nothing.pt2"), "gpt/nothing").error().code == ErrorCode::NotFound);
  CHECK(Archive::open(fixture("empty.pt2")).error().code == ErrorCode::DataLoss);
  CHECK(Archive::open(fixture("no_archive.pt2")).error().code == ErrorCode::DataLoss);
  CHECK_FALSE(Archive::open(fixture("")).has_value());
}

TEST_CASE("compressed entries are read but have no offset", "[archive]") {
  const auto archive = Archive::open(fixture("compressed.zip"));
  REQUIRE(archive.has_value());
  CHECK(archive->read("text", 1 << 20).value() == std::string(10000, 'a'));
  CHECK(archive->data_offset("text").error().code == ErrorCode::DataLoss);
  CHECK(archive->data_offset("stored").has_value());
}

TEST_CASE("an entry that unpacks to a thousand times its size is refused", "[archive]") {
  const auto archive = Archive::open(fixture("compressed.zip"));
  REQUIRE(archive.has_value());
  const auto read = archive->read("bomb", 1 << 30);
  REQUIRE_FALSE(read.has_value());
  CHECK(read.error().code == ErrorCode::DataLoss);
  CHECK(read.error().expected == "at most 200 times its size in the archive");
}

TEST_CASE("a mapped weight is refused beyond the end of the file", "[archive]") {
  const auto file = WeightFile::open(fixture("no_archive.pt2"));
  REQUIRE(file.has_value());
  WeightLocation location;
  location.file_offset = 8;
  const auto bytes = file->at(location, Bytes(4));
  REQUIRE(bytes.has_value());
  CHECK(std::memcmp(*bytes, "no z", 4) == 0);
  CHECK(file->at(location, Bytes(1 << 20)).error().code == ErrorCode::DataLoss);
  location.file_offset = -1;
  CHECK_FALSE(file->at(location, Bytes(1)).has_value());
}
