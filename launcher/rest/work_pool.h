#pragma once
// A fixed number of threads for what takes longer than a look, and a bounded queue before them. Called by the service.
// Threads: any may add; the destructor waits for what has begun and drops the rest.
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace coxswain::launcher {

class WorkPool {
 public:
  WorkPool(int threads, std::size_t most_waiting) : most_waiting_(most_waiting) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;
  ~WorkPool() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      waiting_.clear();
    }
    came_.notify_all();
  }

  /// False where the queue is full; nothing is kept then. A job throws nothing.
  bool add(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      if (ended_ || waiting_.size() >= most_waiting_) return false;
      waiting_.push_back(std::move(job));
    }
    came_.notify_one();
    return true;
  }

  [[nodiscard]] std::size_t num_waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

 private:
  void work() {
    while (true) {
      std::unique_lock lock(mutex_);
      came_.wait(lock, [this] { return ended_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      const std::function<void()> job = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      job();
    }
  }

  const std::size_t most_waiting_;
  mutable std::mutex mutex_;
  std::condition_variable came_;
  std::deque<std::function<void()>> waiting_;
  bool ended_ = false;
  std::vector<std::jthread> threads_;  // last: they end before what they use
};

}  // namespace coxswain::launcher
