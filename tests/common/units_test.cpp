#include "common/units.h"

#include <type_traits>

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

template <class A, class B>
concept Addable = requires(A a, B b) { a + b; };

TEST_CASE("quantities of different units cannot be added") {
  STATIC_REQUIRE(Addable<Bytes, Bytes>);
  STATIC_REQUIRE_FALSE(Addable<Bytes, Seconds>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<double, Seconds>);
}

TEST_CASE("bytes and rates make times") {
  CHECK(Bytes(6) / BytesPerSecond(2.0) == Seconds(3.0));
  CHECK(Bytes(6) / Seconds(2.0) == BytesPerSecond(3.0));
  CHECK(Flop(10.0) / FlopPerSecond(4.0) == Seconds(2.5));
  CHECK(Flop(10.0) / Seconds(4.0) == FlopPerSecond(2.5));
  CHECK(Bytes(3) / Bytes(2) == 1.5);
  CHECK(Bytes(3) * 4 - Bytes(2) + Bytes(1) == Bytes(11));
}

}  // namespace
}  // namespace coxswain
