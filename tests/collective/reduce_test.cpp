#include "collective/host/reduce.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::collective;

namespace {

template <class T>
std::vector<T> reduced(DType dtype, ReduceOp op, const std::vector<std::vector<T>>& sources) {
  std::vector<const std::byte*> views;
  for (const auto& source : sources) views.push_back(reinterpret_cast<const std::byte*>(source.data()));
  std::vector<T> out(sources[0].size());
  reduce(dtype, op, reinterpret_cast<std::byte*>(out.data()), views, out.size() * sizeof(T));
  return out;
}

/// The value of a format with `fraction_bits` and exponent bias, from the definition of IEEE 754.
double value_of(std::uint16_t bits, int fraction_bits, int bias) {
  const int exponent = (bits & 0x7fff) >> fraction_bits;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  const int largest = (1 << (15 - fraction_bits)) - 1;
  if (exponent == largest)
    return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}

/// The sum of two of them in float, rounded to the nearest of the format, ties to the even one: by search.
void require_nearest(std::uint16_t got, float exact, int fraction_bits, int bias) {
  const double value = value_of(got, fraction_bits, bias);
  if (std::isnan(exact) || std::isinf(exact)) {
    REQUIRE((std::isnan(exact) ? std::isnan(value) : value == exact));
    return;
  }
  const auto infinity = static_cast<std::uint16_t>(((1 << (15 - fraction_bits)) - 1) << fraction_bits);
  // The neighbour above the largest finite value counts as its next step, though the format calls it infinity.
  const double beyond = std::ldexp(1.0, (infinity >> fraction_bits) - bias);
  const auto magnitude = [&](std::uint16_t bits) {
    return (bits & 0x7fff) == infinity ? beyond : std::abs(value_of(bits, fraction_bits, bias));
  };
  const double target = std::abs(static_cast<double>(exact));
  const auto bits = static_cast<std::uint16_t>(got & 0x7fff);
  const double error = std::abs(magnitude(bits) - target);
  if (bits > 0) {
    const double below = std::abs(magnitude(static_cast<std::uint16_t>(bits - 1)) - target);
    REQUIRE((error < below || (error == below && bits % 2 == 0)));
  }
  if (bits < infinity) {
    const double above = std::abs(magnitude(static_cast<std::uint16_t>(bits + 1)) - target);
    REQUIRE((error < above || (error == above && bits % 2 == 0)));
  }
}

void require_rounded_sums(DType dtype, int fraction_bits, int bias) {
  std::vector<std::uint16_t> all(65536), others(65536);
  std::mt19937 generator(7);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<std::uint16_t>(i);
    // Of similar size, so that sums round: every other one shares the exponent.
    others[i] = static_cast<std::uint16_t>(i % 2 == 0 ? i ^ (generator() & 0x7f) : generator());
  }
  const auto sums = reduced(dtype, ReduceOp::Sum, std::vector{all, others});
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto a = static_cast<float>(value_of(all[i], fraction_bits, bias));
    const auto b = static_cast<float>(value_of(others[i], fraction_bits, bias));
    require_nearest(sums[i], a + b, fraction_bits, bias);
  }
}

}  // namespace

TEST_CASE("bfloat16 sums are the nearest to the float sum, for every first operand") {
  require_rounded_sums(DType::BFloat16, 7, 127);
}

TEST_CASE("float16 sums are the nearest to the float sum, for every first operand") {
  require_rounded_sums(DType::Float16, 10, 15);
}

TEST_CASE("half precisions are rounded once however many terms there are") {
  // 256 + 1 + 1 + 1 + 1 is 260, which bfloat16 holds; rounding after each term would stay at 256.
  const std::uint16_t big = 0x4380, one = 0x3f80;
  CHECK(reduced<std::uint16_t>(DType::BFloat16, ReduceOp::Sum, {{big}, {one}, {one}, {one}})[0] ==
        0x4382);  // 259 -> 260, ties to even
  CHECK(reduced<std::uint16_t>(DType::BFloat16, ReduceOp::Sum, {{big}, {one}, {one}, {one}, {one}})[0] ==
        0x4382);  // 260
}

TEST_CASE("any number of sources adds up, in place too") {
  for (std::size_t num_sources = 1; num_sources <= 9; ++num_sources) {
    for (std::size_t in_place = 0; in_place < num_sources; ++in_place) {
      std::vector<std::vector<std::int64_t>> sources(num_sources, std::vector<std::int64_t>(3001));
      std::vector<const std::byte*> views;
      std::int64_t power = 1;
      for (auto& source : sources) {
        for (std::size_t i = 0; i < source.size(); ++i) source[i] = power * static_cast<std::int64_t>(i);
        views.push_back(reinterpret_cast<const std::byte*>(source.data()));
        power *= 10;
      }
      reduce(DType::Int64, ReduceOp::Sum, reinterpret_cast<std::byte*>(sources[in_place].data()), views, 3001 * 8);
      // (10^n - 1) / 9 = 11...1
      for (std::size_t i = 0; i < 3001; ++i)
        REQUIRE(sources[in_place][i] == (power - 1) / 9 * static_cast<std::int64_t>(i));
    }
  }
}

TEST_CASE("sums follow the order of the sources") {
  // (1e8 + -1e8) + 1 = 1, but 1e8 + (-1e8 + 1) = 0 in float32.
  CHECK(reduced<float>(DType::Float32, ReduceOp::Sum, {{1e8f}, {-1e8f}, {1.0f}})[0] == 1.0f);
  CHECK(reduced<float>(DType::Float32, ReduceOp::Sum, {{1.0f}, {1e8f}, {-1e8f}})[0] == 0.0f);
}

TEST_CASE("integers wrap, bool adds as or, a NaN wins maxima and minima") {
  CHECK(reduced<std::int8_t>(DType::Int8, ReduceOp::Sum, {{127}, {1}})[0] == -128);
  CHECK(reduced<std::uint8_t>(DType::UInt8, ReduceOp::Sum, {{200}, {100}})[0] == 44);
  CHECK(reduced<std::int32_t>(DType::Int32, ReduceOp::Sum, {{std::numeric_limits<std::int32_t>::max()}, {1}})[0] ==
        std::numeric_limits<std::int32_t>::min());
  CHECK(reduced<std::uint8_t>(DType::Bool, ReduceOp::Sum, {{1, 0, 1, 0}, {1, 1, 0, 0}}) ==
        std::vector<std::uint8_t>{1, 1, 1, 0});
  CHECK(reduced<std::uint8_t>(DType::Bool, ReduceOp::Min, {{1, 0, 1, 0}, {1, 1, 0, 0}}) ==
        std::vector<std::uint8_t>{1, 0, 0, 0});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const ReduceOp op : {ReduceOp::Max, ReduceOp::Min}) {
    const auto got = reduced<float>(DType::Float32, op, {{nan, 1, 2}, {1, nan, 3}});
    CHECK(std::isnan(got[0]));
    CHECK(std::isnan(got[1]));
    CHECK(got[2] == (op == ReduceOp::Max ? 3 : 2));
  }
}
