#pragma once
// Whether a run goes on after a failure: as often within an hour as the job allows, and not into the same failure over
// and over. Called by coordinator. Threads: pure; time is passed in.
#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/units.h"

namespace coxswain::launcher {

/// The same step failing this often in the same way will fail again.
inline constexpr int kSameFailures = 3;

/// Where a generation failed, and of what: which rank met it first is chance and no part of it.
struct FailurePoint {
  std::int64_t after_step = 0;
  std::string kind;
  friend bool operator==(const FailurePoint&, const FailurePoint&) = default;
};

class Restarts {
 public:
  /// `most`: within an hour.
  explicit Restarts(int most) : most_(most) {}

  [[nodiscard]] bool allows(const FailurePoint& failure, TimePoint now) const;
  /// With this one it failed kSameFailures times alike.
  [[nodiscard]] bool is_hopeless(const FailurePoint& failure) const;
  void add(FailurePoint failure, TimePoint now);
  /// Before the next generation: nothing after the first failure in a row, then a second, doubled up to a minute.
  [[nodiscard]] Seconds back_off() const;
  /// The step that failed was taken: what follows is another outage.
  void recovered() { in_a_row_.clear(); }
  /// Of the whole run.
  [[nodiscard]] int count() const { return static_cast<int>(times_.size()); }

 private:
  int most_;
  std::vector<TimePoint> times_;
  std::vector<FailurePoint> in_a_row_;
};

}  // namespace coxswain::launcher
