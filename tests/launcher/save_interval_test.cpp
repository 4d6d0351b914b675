#include "launcher/control/save_interval.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

TEST_CASE("the interval is Young's, within what waiting and the disk allow") {
  // sqrt(2 x 2 s x 10,000 s) = 200 s; of 6 hours and 18,400 s with three failures.
  CHECK(save_interval({Seconds(2), Seconds(3)}, Seconds(18400), 3).value == Approx(200));
  // One expected in six hours: sqrt(2 x 0.5 x 21,600) = 147 s.
  CHECK(save_interval({Seconds(0.5), Seconds(1)}, Seconds(0), 0).value == Approx(146.97).epsilon(1e-4));
  // Waiting 1 % of the time at most.
  CHECK(save_interval({Seconds(10), Seconds(11)}, Seconds(0), 99).value == Approx(1000));
  // The disk takes 100 s.
  CHECK(save_interval({Seconds(0.01), Seconds(100)}, Seconds(0), 0).value == Approx(200));
  CHECK(save_interval({Seconds(0), Seconds(0.001)}, Seconds(0), 0).value == Approx(10));
}
