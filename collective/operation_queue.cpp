#include "collective/operation_queue.h"

#include "common/thread_name.h"

namespace coxswain::collective {

void OperationQueue::push(std::shared_ptr<Operation> operation, Body body) {
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(operation), std::move(body)});
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  changed_.notify_one();
}

bool OperationQueue::pending() const {
  const std::lock_guard lock(mutex_);
  return busy_ || !queue_.empty();
}

void OperationQueue::run() {
  name_thread("operations");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Queued next = std::move(queue_.front());
    queue_.pop_front();
    busy_ = true;
    lock.unlock();
    Result<void> result = perform_(next.operation->name(), next.body);
    lock.lock();
    // Before the waiter knows: it may close the communicator at once, in good order.
    busy_ = false;
    lock.unlock();
    next.operation->complete(std::move(result));
    lock.lock();
  }
}

void OperationQueue::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

}  // namespace coxswain::collective
