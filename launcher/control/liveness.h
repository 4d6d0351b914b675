#pragma once
// Heartbeats between coordinator and agents: liveness of a process, separate from the progress of its work.
// With these numbers a silent peer (half-open connection, stopped process) is found within 2.3 s; a dead one at once,
// by the end of its connection. Threads: pure values.
#include <cstdint>
#include <optional>
#include <string>

#include "common/clock.h"
#include "common/error.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {

[[nodiscard]] inline TimePoint after(TimePoint now, double seconds) {
  return now + std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(seconds));
}

class Heartbeat {
 public:
  Heartbeat(double every_seconds, TimePoint now) : every_(every_seconds), last_(now) {}
  bool due(TimePoint now) {
    if (std::chrono::duration<double>(now - last_).count() < every_) return false;
    last_ = now;
    return true;
  }
  /// Something else was sent, which says the same.
  void sent(TimePoint now) { last_ = now; }
  [[nodiscard]] TimePoint next() const { return after(last_, every_); }

 private:
  double every_;
  TimePoint last_;
};

class Silence {
 public:
  Silence(double limit_seconds, TimePoint now) : limit_(limit_seconds), last_(now) {}
  void heard(TimePoint now) { last_ = now; }
  [[nodiscard]] bool too_long(TimePoint now) const {
    return std::chrono::duration<double>(now - last_).count() > limit_;
  }
  /// From then on it is.
  [[nodiscard]] TimePoint until() const { return after(last_, limit_) + TimePoint::duration(1); }
  /// Most of it has passed.
  [[nodiscard]] TimePoint doubtful() const { return after(last_, limits::kDoubtFraction * limit_); }

 private:
  double limit_;
  TimePoint last_;
};

/// Whether this process stood still: it looks more often than that. Then nobody else was silent.
class OwnPause {
 public:
  /// Since the look before, until now.
  [[nodiscard]] bool stood_still(TimePoint now) const { return last_ && now > after(*last_, limits::kOwnPause); }
  void look(TimePoint now) { last_ = now; }
  [[nodiscard]] bool looked() const { return last_.has_value(); }

 private:
  std::optional<TimePoint> last_;
};

/// A process that is stopped (SIGSTOP) at so many looks in a row, and did nothing between them, answers nobody, and its
/// peers wait for it. Looks are counted, not seconds: a watcher that was stopped with what it watches and goes on with
/// it finds none overdue.
class StoppedLooks {
 public:
  /// Of Spawner::stopped_at. True once, at the look that makes it so many.
  bool add(std::optional<std::int64_t> stopped_at) {
    in_a_row_ = !stopped_at ? 0 : stopped_at == last_ ? in_a_row_ + 1 : 1;
    last_ = stopped_at;
    return in_a_row_ == limits::kStoppedLooks;
  }
  [[nodiscard]] bool enough() const { return in_a_row_ >= limits::kStoppedLooks; }

 private:
  int in_a_row_ = 0;
  std::optional<std::int64_t> last_;
};

/// Serialised AgentReport, AgentCommand.
[[nodiscard]] std::string agent_heartbeat();
[[nodiscard]] std::string agent_doubts();
[[nodiscard]] std::string coordinator_heartbeat();
[[nodiscard]] std::string agent_error_report(const Error& error);

}  // namespace coxswain::launcher
