#pragma once
// Events of many threads, handled by one. Bounded: a full queue makes the poster wait, so that a flood of reports slows
// its source. Used by the loops of coordinator, agent and run_train. Threads: push and close from any, pop from one.
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>

#include "common/clock.h"

namespace coxswain::launcher {

template <class Event>
class EventQueue {
 public:
  /// False once closed; the event is dropped then.
  bool push(Event event) { return add(std::move(event), true); }

  /// The same, and wakes nobody, unless many wait: popped with the next event, or when the wait for one ends.
  bool push_later(Event event) { return add(std::move(event), false); }

  /// The next event; nullopt when none came until `at`.
  std::optional<Event> pop(TimePoint at) {
    std::unique_lock lock(mutex_);
    if (!filled_.wait_until(lock, at, [this] { return !events_.empty(); })) return std::nullopt;
    Event event = std::move(events_.front());
    events_.pop_front();
    lock.unlock();
    room_.notify_one();
    return event;
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    room_.notify_all();
  }

 private:
  bool add(Event event, bool wakes) {
    std::unique_lock lock(mutex_);
    room_.wait(lock, [this] { return closed_ || events_.size() < kCapacity; });
    if (closed_) return false;
    events_.push_back(std::move(event));
    wakes = wakes || events_.size() >= kMany;
    lock.unlock();
    if (wakes) filled_.notify_one();
    return true;
  }

  static constexpr std::size_t kCapacity = 65536, kMany = 256;
  std::mutex mutex_;
  std::condition_variable filled_, room_;
  std::deque<Event> events_;
  bool closed_ = false;
};

}  // namespace coxswain::launcher
