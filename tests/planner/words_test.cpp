// Numbers as people read them.
#include "planner/words.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

TEST_CASE("bytes, seconds and comparisons are told in the unit that suits them", "[words_test]") {
  CHECK(bytes_text(std::int64_t{3} << 29) == "1.50 GiB");
  CHECK(bytes_text(std::int64_t{3} << 19) == "1.50 MiB");
  CHECK(bytes_text(1536) == "1.50 KiB");
  CHECK(seconds_text(Seconds(1.5)) == "1.500 s");
  CHECK(seconds_text(Seconds(0.0125)) == "12.50 ms");
  CHECK(seconds_text(Seconds(1.25e-5)) == "12.5 us");
  CHECK(compare_text(Seconds(1.1), Seconds(1)) == "10.0 % slower");
  CHECK(compare_text(Seconds(0.5), Seconds(1)) == "50.0 % faster");
  CHECK(compare_text(Seconds(1.0001), Seconds(1)) == "as fast");
}
