#include "common/clock.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace coxswain {
namespace {

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }

  std::string utc_text() const override {
    using std::chrono::milliseconds;
    const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t total = std::chrono::duration_cast<milliseconds>(since_epoch).count();
    const std::time_t seconds = static_cast<std::time_t>(total / 1000);
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    char date[32];
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
    char fraction[8];
    std::snprintf(fraction, sizeof fraction, ".%03dZ", static_cast<int>(total % 1000));
    return std::string(date) + fraction;
  }
};

}  // namespace

const Clock& steady_clock() {
  static const SteadyClock kClock;
  return kClock;
}

Deadline Deadline::after(const Clock& clock, Seconds seconds) {
  const TimePoint now = clock.now();
  const double room = std::chrono::duration<double>(TimePoint::max() - now).count();
  // Half of what is left, so that rounding in double cannot overflow the integer ticks.
  if (seconds.value >= room / 2) return never();
  const auto span = std::chrono::duration<double>(std::max(seconds.value, 0.0));
  return Deadline{now + std::chrono::duration_cast<TimePoint::duration>(span)};
}

Seconds Deadline::remaining(const Clock& clock) const {
  const TimePoint now = clock.now();
  if (now >= at) return Seconds(0.0);
  return Seconds(std::chrono::duration<double>(at - now).count());
}

}  // namespace coxswain
