#include "common/philox.h"

#include <set>

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers of the paper's library (Random123, kat_vectors, philox4x32 with 10 rounds).
TEST_CASE("philox gives the published answer for zeros") {
  CHECK(philox4x32({0, 0}, {0, 0, 0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
}

TEST_CASE("philox gives the published answer for ones") {
  constexpr std::uint32_t kOnes = 0xffffffff;
  CHECK(philox4x32({kOnes, kOnes}, {kOnes, kOnes, kOnes, kOnes}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("philox gives the published answer for the digits of pi") {
  CHECK(philox4x32({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform_from covers the half-open unit interval") {
  CHECK(uniform_from(0) == 0.0f);
  CHECK(uniform_from(0x80000000) == 0.5f);
  CHECK(uniform_from(0xffffffff) == 1.0f - 0x1.0p-24f);
}

TEST_CASE("a philox key is the seed combined with the published FNV-1a hash of the stream") {
  // FNV-1a 64 of "foobar" is 85944171f73967e8 (the test suite of its authors).
  CHECK(make_philox_key(0, "foobar") == std::array<std::uint32_t, 2>{0xf73967e8, 0x85944171});
  CHECK(make_philox_key(0x100000001, "foobar") == std::array<std::uint32_t, 2>{0xf73967e9, 0x85944170});
}

TEST_CASE("philox keys of nearby seeds and streams differ") {
  std::set<std::array<std::uint32_t, 2>> keys;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (const char* stream : {"", "data", "dropout", "weights"}) keys.insert(make_philox_key(seed, stream));
  }
  CHECK(keys.size() == 400);
}

}  // namespace
}  // namespace coxswain
