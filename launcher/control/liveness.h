#pragma once
// Heartbeats between coordinator and agents: liveness of a process, separate from the progress of its work.
// With these numbers a silent peer (half-open connection, stopped process) is found within 2.3 s; a dead one at once,
// by the end of its connection. Threads: pure values.
#include <string>

#include "common/clock.h"
#include "common/error.h"

namespace coxswain::launcher {

inline constexpr double kHeartbeatSeconds = 0.3;
inline constexpr double kSilenceSeconds = 2.0;
inline constexpr double kTickSeconds = 0.1;

class Heartbeat {
 public:
  Heartbeat(double every_seconds, TimePoint now) : every_(every_seconds), last_(now) {}
  bool due(TimePoint now) {
    if (std::chrono::duration<double>(now - last_).count() < every_) return false;
    last_ = now;
    return true;
  }

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

 private:
  double limit_;
  TimePoint last_;
};

/// Serialised AgentReport, AgentCommand.
[[nodiscard]] std::string agent_heartbeat();
[[nodiscard]] std::string coordinator_heartbeat();
[[nodiscard]] std::string agent_error_report(const Error& error);

}  // namespace coxswain::launcher
