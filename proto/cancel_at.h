#pragma once
// Ends a call at a deadline, whatever it waits for. Private to this folder. Threads: one owner; `cancel` is called from
// a thread of its own.
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "common/clock.h"

namespace coxswain::proto {

/// Calls `cancel` when it still lives at `at`.
class CancelAt {
 public:
  CancelAt(std::function<void()> cancel, TimePoint at)
      : thread_([this, cancel = std::move(cancel), at] {
          std::unique_lock lock(mutex_);
          if (!changed_.wait_until(lock, at, [this] { return dismissed_; })) cancel();
        }) {}
  CancelAt(const CancelAt&) = delete;
  CancelAt& operator=(const CancelAt&) = delete;
  ~CancelAt() {
    {
      const std::lock_guard lock(mutex_);
      dismissed_ = true;
    }
    changed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool dismissed_ = false;
  std::jthread thread_;
};

}  // namespace coxswain::proto
