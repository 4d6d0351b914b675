// Pieces that lie in memory are read as those of a file are; files are read in folder_test and by the engine's tests.
#include "checkpoint/reader.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::checkpoint;

TEST_CASE("a piece is put together out of others that lie in memory") {
  const std::vector<float> low{0, 1, 2}, high{13, 14, 15}, low_moment{20, 21, 22}, high_moment{33, 34, 35};
  const Piece whole = whole_piece("w", {6});
  Piece first = whole, second = whole, middle = whole;
  first.count = 3;
  second.first = 3;
  second.count = 3;
  middle.first = 1;
  middle.count = 4;
  const Reader reader = Reader::over(
      {{second, {high.data(), high_moment.data(), high.data()}}, {first, {low.data(), low_moment.data(), low.data()}}});
  std::vector<float> read(4);
  REQUIRE(reader.read(State::Values, middle, read));
  CHECK(read == std::vector<float>{1, 2, 13, 14});
  REQUIRE(reader.read(State::FirstMoment, middle, read));
  CHECK(read == std::vector<float>{21, 22, 33, 34});

  const Reader half = Reader::over({{first, {low.data(), low.data(), low.data()}}});
  const auto lacks = half.read(State::Values, middle, read);
  REQUIRE_FALSE(lacks);
  CHECK(lacks.error().code == ErrorCode::DataLoss);
  CHECK(lacks.error().got == "none for element 3");
}
