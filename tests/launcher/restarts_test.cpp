#include "launcher/control/restarts.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

TimePoint at(double seconds) {
  return TimePoint() + std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

TEST_CASE("as many restarts within an hour as the job allows", "[restarts]") {
  Restarts restarts(2);
  CHECK(restarts.allows({1, "signal 9"}, at(0)));
  restarts.add({1, "signal 9"}, at(0));
  restarts.recovered();
  restarts.add({5, "signal 9"}, at(1800));
  restarts.recovered();
  CHECK_FALSE(restarts.allows({9, "signal 9"}, at(3599)));
  CHECK(restarts.allows({9, "signal 9"}, at(3600)));
  CHECK(restarts.count() == 2);
  CHECK_FALSE(Restarts(0).allows({1, "signal 9"}, at(0)));
}

TEST_CASE("the third failure alike is hopeless, others between do not matter", "[restarts]") {
  Restarts restarts(100);
  restarts.add({7, "INTERNAL"}, at(0));
  restarts.add({7, "signal 9"}, at(1));
  CHECK_FALSE(restarts.is_hopeless({7, "INTERNAL"}));
  restarts.add({7, "INTERNAL"}, at(2));
  CHECK(restarts.is_hopeless({7, "INTERNAL"}));
  CHECK_FALSE(restarts.allows({7, "INTERNAL"}, at(3)));
  CHECK(restarts.allows({8, "INTERNAL"}, at(3)));
  CHECK(restarts.allows({7, "signal 9"}, at(3)));
  restarts.recovered();
  CHECK_FALSE(restarts.is_hopeless({7, "INTERNAL"}));
}

TEST_CASE("pauses double from a second to a minute, and begin anew after a recovery", "[restarts]") {
  Restarts restarts(100);
  CHECK(restarts.back_off() == Seconds(0));
  for (const double pause : {0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0}) {
    restarts.add({1, std::to_string(pause)}, at(0));
    CHECK(restarts.back_off().value == pause);
  }
  restarts.recovered();
  restarts.add({2, "signal 9"}, at(0));
  CHECK(restarts.back_off() == Seconds(0));
}
