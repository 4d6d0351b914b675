#pragma once
// A clock that moves when a test says so. Threads: any may read while one advances.
#include <atomic>

#include "common/clock.h"

namespace coxswain {

class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return TimePoint(TimePoint::duration(ticks_.load())); }
  [[nodiscard]] std::string utc_text() const override { return "2000-01-01T00:00:00.000Z"; }

  void advance(Seconds seconds) {
    const std::chrono::duration<double> span(seconds.value);
    ticks_ += std::chrono::duration_cast<TimePoint::duration>(span).count();
  }

 private:
  std::atomic<TimePoint::rep> ticks_{0};
};

}  // namespace coxswain
