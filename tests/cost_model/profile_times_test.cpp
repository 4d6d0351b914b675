// C12: between and beyond measured points.
#include "cost_model/profile_times.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;

namespace {

cluster::BlockTiming point(std::int64_t samples, double forward, std::int64_t saved) {
  return {"s", "d", samples, Seconds(forward), Seconds(2 * forward), Bytes(saved), Bytes(2 * saved)};
}

}  // namespace

TEST_CASE("C12: times are piecewise linear in samples", "[profile_times_test]") {
  const auto a = point(2, 3, 20), b = point(4, 5, 40), c = point(8, 13, 80);
  const std::vector<const cluster::BlockTiming*> points{&a, &b, &c};
  CHECK(interpolate_block(points, 2).forward.value == Approx(3));
  CHECK(interpolate_block(points, 3).forward.value == Approx(4));
  CHECK(interpolate_block(points, 3).backward.value == Approx(8));
  CHECK(interpolate_block(points, 6).forward.value == Approx(9));
  CHECK(interpolate_block(points, 8).forward.value == Approx(13));
}

TEST_CASE("C12: beyond the points the line goes on, within bounds", "[profile_times_test]") {
  const auto a = point(2, 3, 20), b = point(4, 5, 40);
  const std::vector<const cluster::BlockTiming*> points{&a, &b};
  CHECK(interpolate_block(points, 10).forward.value == Approx(11));
  CHECK(interpolate_block(points, 1).forward.value == Approx(2));
  // A line that would fall below the proportional share, or rise towards zero samples.
  const auto steep = point(4, 9, 40), falling = point(4, 1, 40);
  CHECK(interpolate_block({&a, &steep}, 1).forward.value == Approx(1.5));
  CHECK(interpolate_block({&a, &falling}, 1).forward.value == Approx(3));
  CHECK(interpolate_block({&a, &falling}, 9).forward.value == Approx(1));
  CHECK(interpolate_block({&a}, 6).forward.value == Approx(9));
}

TEST_CASE("C12: an interpolated time states its uncertainty, a measured one none", "[profile_times_test]") {
  const auto a = point(2, 3, 20), b = point(4, 5, 40), c = point(8, 13, 80);
  const std::vector<const cluster::BlockTiming*> points{&a, &b, &c};
  for (const std::int64_t samples : {2, 4, 8}) CHECK(interpolation_uncertainty(points, samples) == 0);
  // 4 by the line; 4.5 by the share of the point before, 3 by the line behind (1 + ... = 3, the lower point): 1.5 / 2
  // / 4.
  CHECK(interpolation_uncertainty(points, 3) == Approx(0.1875));
  // 9 by the line; 7 by the line before, 9.75 by the share of the point behind.
  CHECK(interpolation_uncertainty(points, 6) == Approx(2.75 / 2 / 9));
  // 17 by the line; 16.25 by the share, 13 by the last point.
  CHECK(interpolation_uncertainty(points, 10) == Approx(4.0 / 2 / 17));
  // 2 by the line; 1.5 by the share, 3 by the first point.
  CHECK(interpolation_uncertainty(points, 1) == Approx(1.5 / 2 / 2));
  CHECK(interpolation_uncertainty({&a}, 2) == 0);
  CHECK(interpolation_uncertainty({&a}, 4) == Approx(3.0 / 2 / 6));
}

TEST_CASE("C12: what does not grow with samples is where the best line meets none", "[profile_times_test]") {
  const auto a = point(1, 5, 0), b = point(2, 7, 0), c = point(4, 11, 0), d = point(8, 19, 0), e = point(16, 100, 0);
  CHECK(fixed_part({&a, &b, &c, &d, &e}).forward.value == Approx(3));  // the fifth says nothing
  CHECK(fixed_part({&a, &b, &c, &d, &e}).backward.value == Approx(6));
  // Through (1, 5), (2, 7), (4, 14) by least squares: slope 43 / 14, 26 / 3 at 7 / 3.
  const auto bent = point(4, 14, 0);
  CHECK(fixed_part({&a, &b, &bent}).forward.value == Approx(26.0 / 3 - 43.0 / 14 * 7 / 3));
  const auto steep = point(2, 20, 0);
  CHECK(fixed_part({&a, &steep}).forward.value == 0);  // below nothing
  CHECK(fixed_part({&a}).forward.value == 0);
}
