#include "common/clock.h"

#include <regex>

#include "tests/support/manual_clock.h"

#include <catch2/catch.hpp>

namespace coxswain {
namespace {

TEST_CASE("a deadline passes when the clock reaches it") {
  ManualClock clock;
  const Deadline deadline = Deadline::after(clock, Seconds(10.0));
  CHECK_FALSE(deadline.passed(clock));
  CHECK(deadline.remaining(clock) == Seconds(10.0));
  clock.advance(Seconds(9.5));
  CHECK_FALSE(deadline.passed(clock));
  CHECK(deadline.remaining(clock) == Seconds(0.5));
  clock.advance(Seconds(0.5));
  CHECK(deadline.passed(clock));
  CHECK(deadline.remaining(clock) == Seconds(0.0));
  clock.advance(Seconds(100.0));
  CHECK(deadline.remaining(clock) == Seconds(0.0));
}

TEST_CASE("a deadline beyond the clock's range never passes") {
  ManualClock clock;
  clock.advance(Seconds(1000.0));
  CHECK(Deadline::after(clock, Seconds(1e300)).at == TimePoint::max());
  CHECK_FALSE(Deadline::never().passed(clock));
}

TEST_CASE("a negative span is a deadline that has passed") {
  ManualClock clock;
  CHECK(Deadline::after(clock, Seconds(-1.0)).passed(clock));
}

TEST_CASE("the steady clock does not go back and prints ISO 8601 in UTC") {
  const TimePoint first = steady_clock().now();
  CHECK(steady_clock().now() >= first);
  const std::regex iso(R"(20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\d\.\d{3}Z)");
  CHECK(std::regex_match(steady_clock().utc_text(), iso));
}

}  // namespace
}  // namespace coxswain
