#pragma once
// The only way to time, and the absolute, steady point at which a wait gives up.
// Seam: Clock (real: SteadyClock; tests: ManualClock in tests/support). Source: STYLE section 5.
#include <chrono>
#include <string>

#include "common/units.h"

namespace coxswain {

using TimePoint = std::chrono::steady_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;
  /// Wall time in UTC, for files people read: "2026-11-23T22:38:01.123Z".
  [[nodiscard]] virtual std::string utc_text() const = 0;
};

/// The machine's steady clock. Threads: any; lives as long as the process.
[[nodiscard]] const Clock& steady_clock();

/// Absolute. The last parameter of everything that waits; passed down unchanged; no default.
struct Deadline {
  TimePoint at = TimePoint::max();

  [[nodiscard]] static Deadline after(const Clock& clock, Seconds seconds);
  [[nodiscard]] static Deadline never() { return {}; }
  [[nodiscard]] bool passed(const Clock& clock) const { return clock.now() >= at; }
  /// Never negative.
  [[nodiscard]] Seconds remaining(const Clock& clock) const;
};

}  // namespace coxswain
