#pragma once
// Which of a rank's reports travel at once, and which with the agent's next heartbeat: of a rank that steps for a while
// nobody waits for each step. Called by the agent's readers, one for each rank. Threads: one.
#include <optional>
#include <string_view>

#include "common/clock.h"

namespace coxswain::launcher {

enum class Haste { AtOnce, WithNextBeat };

// After a failure a run has recovered with the step after the last one before it: that one is told at once, and who
// waits for the first steps sees them.
inline constexpr double kYoungSeconds = 10;

class ReportHaste {
 public:
  /// Of the rank's next report, a serialised WorkerReport.
  Haste of(std::string_view report, TimePoint now);

 private:
  std::optional<TimePoint> old_from_;  // from the first step on
};

}  // namespace coxswain::launcher
