#include "common/bytes_io.h"

#include <sys/stat.h>

#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

TEST_CASE("what is written is read, bytes unchanged") {
  const TempDir folder;
  const std::string content("a\0b\n\xff", 5);
  REQUIRE(write_file(folder / "file", content).has_value());
  CHECK(read_file(folder / "file").value() == content);
  REQUIRE(write_file(folder / "file", "").has_value());
  CHECK(read_file(folder / "file").value().empty());
}

TEST_CASE("a written file is its owner's alone and leaves nothing beside it") {
  const TempDir folder;
  REQUIRE(write_file(folder / "file", "x").has_value());
  struct stat status{};
  REQUIRE(::stat((folder / "file").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("a file written in parts has their sum, and one not finished is gone") {
  const TempDir folder;
  {
    auto file = NewFile::create(folder / "file");
    REQUIRE(file.has_value());
    REQUIRE(file->write("ab").has_value());
    REQUIRE(file->write("c").has_value());
    REQUIRE(file->finish().has_value());
    CHECK(file->size() == Bytes(3));
    CHECK(file->sha256() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    auto unfinished = NewFile::create(folder / "unfinished");
    REQUIRE(unfinished->write("ab").has_value());
  }
  CHECK(read_file(folder / "file").value() == "abc");
  CHECK(sha256_of_file(folder / "file").value() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
  CHECK(NewFile::create(folder / "file").error().code == ErrorCode::FailedPrecondition);
  CHECK(sync_folder(folder.path()).has_value());
  CHECK(sync_folder(folder / "missing").error().code == ErrorCode::FailedPrecondition);
}

TEST_CASE("a file that holds something else than was written is found") {
  TempDir folder;
  REQUIRE(write_file(folder / "file", "abc"));
  const std::string sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  CHECK(check_on_disk(folder / "file", sha256));
  REQUIRE(write_file(folder / "file", "abd"));
  const auto changed = check_on_disk(folder / "file", sha256);
  REQUIRE_FALSE(changed);
  CHECK(changed.error().code == ErrorCode::DataLoss);
  CHECK(changed.error().path == (folder / "file").string());
  const auto none = check_on_disk(folder / "none", sha256);
  REQUIRE_FALSE(none);
  CHECK(none.error().code == ErrorCode::NotFound);
}

TEST_CASE("a file whose size the system does not tell is read to its end") {
  const std::string status = read_file("/proc/self/status").value();
  CHECK(status.rfind("Name:", 0) == 0);
  CHECK(status.find("\nThreads:") != std::string::npos);
}

TEST_CASE("a missing file and a folder are not found") {
  const TempDir folder;
  const auto missing = read_file(folder / "missing");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().code == ErrorCode::NotFound);
  CHECK(missing.error().path == (folder / "missing").string());
  CHECK(read_file(folder.path()).error().code == ErrorCode::NotFound);
}

TEST_CASE("writing into a missing folder, or over a folder, fails and leaves nothing") {
  const TempDir folder;
  CHECK(write_file(folder / "missing/file", "x").error().code == ErrorCode::FailedPrecondition);
  std::filesystem::create_directory(folder / "taken");
  CHECK(write_file(folder / "taken", "x").error().code == ErrorCode::FailedPrecondition);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

}  // namespace
}  // namespace coxswain
