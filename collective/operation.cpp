#include "collective/operation.h"

namespace coxswain::collective {

Result<void> Operation::wait(Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return done_.load(std::memory_order_acquire); };
  if (deadline.at == TimePoint::max()) {
    completed_.wait(lock, ready);
    return result_;
  }
  if (completed_.wait_until(lock, deadline.at, ready)) return result_;
  lock.unlock();
  Error error{ErrorCode::DeadlineExceeded, name_ + " did not finish before its deadline", "", "", "", ""};
  if (give_up_) give_up_(error);
  return error;
}

void Operation::complete(Result<void> result) {
  {
    const std::lock_guard lock(mutex_);
    if (done_.load(std::memory_order_relaxed)) return;
    result_ = std::move(result);
    done_.store(true, std::memory_order_release);
    completed_.notify_all();
  }
  if (signal_ != nullptr) signal_->raise();
}

Handle completed_handle(Result<void> result, CompletionSignal* signal) {
  auto operation = std::make_shared<Operation>("operation", signal, nullptr);
  operation->complete(std::move(result));
  return Handle(operation);
}

}  // namespace coxswain::collective
