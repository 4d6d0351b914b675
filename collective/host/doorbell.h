#pragma once
// How a rank sleeps until a rank of its node (or its own watcher) has done something: a counter in shared memory with a
// futex, or, when TCP connections are waited for too, an event descriptor beside them in poll.
// Use: seen = bell.seen(); look for work; none? sleep(seen): returns at once when somebody rang since `seen`.
// Threads: one sleeper (the owner's progress thread), any ringer.
#include <poll.h>

#include <span>

#include "collective/host/region.h"
#include "common/clock.h"

namespace coxswain::collective {

class Doorbell {
 public:
  Doorbell() = default;
  /// Borrowed; `event` is the owner's event descriptor.
  Doorbell(RegionHeader* header, int event) : header_(header), event_(event) {}

  void ring() const;
  [[nodiscard]] std::uint32_t seen() const { return header_->bell.load(std::memory_order_seq_cst); }
  void sleep(std::uint32_t seen, Deadline deadline) const;
  /// Also wakes when one of `sockets` is ready.
  void sleep(std::uint32_t seen, std::span<const pollfd> sockets, Deadline deadline) const;

 private:
  enum Sleep : std::uint32_t { kAwake = 0, kFutex = 1, kPoll = 2 };

  RegionHeader* header_ = nullptr;
  int event_ = -1;
};

/// Milliseconds for poll, rounded up; -1 for never.
[[nodiscard]] int poll_timeout(Deadline deadline);
/// One pause of a short spin.
void spin_once();

}  // namespace coxswain::collective
