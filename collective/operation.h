#pragma once
// The state behind a Handle, common to the backends: a progress thread completes it, any thread waits.
// Threads: any. Source: DESIGN 3.6.
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "collective/communicator.h"

namespace coxswain::collective {

class Operation final : public Handle::State {
 public:
  /// `signal` may be null. `give_up` is told when a waiter's deadline passes first: it ends the communicator.
  Operation(std::string name, CompletionSignal* signal, std::function<void(const Error&)> give_up)
      : name_(std::move(name)), signal_(signal), give_up_(std::move(give_up)) {}

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] bool done() const override { return done_.load(std::memory_order_acquire); }
  Result<void> wait(Deadline deadline) override;
  /// The first call counts; later ones are ignored.
  void complete(Result<void> result);

 private:
  const std::string name_;
  CompletionSignal* const signal_;
  std::function<void(const Error&)> give_up_;
  std::mutex mutex_;
  std::condition_variable completed_;
  std::atomic<bool> done_{false};
  Result<void> result_;
};

/// A handle that is complete already.
[[nodiscard]] Handle completed_handle(Result<void> result, CompletionSignal* signal);

}  // namespace coxswain::collective
