#include "launcher/watching/file_tail.h"

#include <fstream>

#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

void append(const std::filesystem::path& file, const std::string& text) { std::ofstream(file, std::ios::app) << text; }

}  // namespace

TEST_CASE("whole lines are given once, as they come", "[file_tail]") {
  const TempDir folder;
  FileTail tail(folder / "log");
  CHECK(tail.next(100).empty());
  append(folder / "log", "one\ntwo\nthr");
  CHECK(tail.next(100) == "one\ntwo\n");
  CHECK(tail.next(100).empty());
  append(folder / "log", "ee\n");
  CHECK(tail.next(100) == "three\n");
  CHECK(tail.lines() == 3);
}

TEST_CASE("no more than is asked for, and a line that is longer in parts", "[file_tail]") {
  const TempDir folder;
  append(folder / "log", "ab\ncd\n0123456789\n");
  FileTail tail(folder / "log");
  CHECK(tail.next(4) == "ab\n");
  CHECK(tail.next(4) == "cd\n");
  CHECK(tail.next(4) == "0123");
  CHECK(tail.next(100) == "456789\n");
}

TEST_CASE("what ends without a line break is given once nothing more is written", "[file_tail]") {
  const TempDir folder;
  append(folder / "log", "killed in the mid");
  FileTail tail(folder / "log");
  CHECK(tail.next(100).empty());
  CHECK(tail.next(100, true) == "killed in the mid");
  CHECK(tail.next(100, true).empty());
}

TEST_CASE("the end of a file is read without the rest", "[file_tail]") {
  const TempDir folder;
  CHECK(last_line(folder / "none").empty());
  append(folder / "log", "first\nsecond\nthird\ncut sho");
  CHECK(last_line(folder / "log") == "third");
  CHECK(last_line(folder / "log", 16) == "third");
  CHECK(last_bytes(folder / "log", 16) == "third\ncut sho");
  CHECK(last_bytes(folder / "log", 1000) == "first\nsecond\nthird\ncut sho");
}
