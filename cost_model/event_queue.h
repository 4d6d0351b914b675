#pragma once
// Virtual time in whole nanoseconds, so that sums are exact and equal plans give equal bytes, and the events that move
// it. Used by the simulator only. Threads: one.
#include <cmath>
#include <cstdint>
#include <queue>
#include <vector>

#include "common/clock.h"

namespace coxswain::cost_model {

using Ticks = std::int64_t;

[[nodiscard]] inline Ticks to_ticks(Seconds seconds) { return std::llround(seconds.value * 1e9); }
[[nodiscard]] inline Seconds to_seconds(Ticks ticks) { return Seconds(static_cast<double>(ticks) * 1e-9); }

class VirtualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return TimePoint(std::chrono::nanoseconds(ticks_)); }
  [[nodiscard]] std::string utc_text() const override { return "1970-01-01T00:00:00.000Z"; }
  [[nodiscard]] Ticks ticks() const { return ticks_; }
  void advance_to(Ticks ticks) { ticks_ = ticks; }

 private:
  Ticks ticks_ = 0;
};

struct Event {
  enum class Kind { ComputeEnd, CommunicationEnd } kind = Kind::ComputeEnd;
  int rank = 0;              // ComputeEnd
  int operation = 0;         // CommunicationEnd
  std::int64_t version = 0;  // ComputeEnd: of the running action; an older one has been put off
};

/// Earliest first; events of one instant in the order in which they were pushed.
class EventQueue {
 public:
  void push(Ticks at, Event event) { heap_.push({at, next_++, event}); }
  [[nodiscard]] bool empty() const { return heap_.empty(); }
  [[nodiscard]] Ticks next_time() const { return heap_.top().at; }
  Event pop() {
    const Event event = heap_.top().event;
    heap_.pop();
    return event;
  }

 private:
  struct Entry {
    Ticks at = 0;
    std::int64_t order = 0;
    Event event;
    friend bool operator<(const Entry& a, const Entry& b) { return a.at != b.at ? a.at > b.at : a.order > b.order; }
  };
  std::priority_queue<Entry> heap_;
  std::int64_t next_ = 0;
};

}  // namespace coxswain::cost_model
