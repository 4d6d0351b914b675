#include <condition_variable>
#include <mutex>

#include "collective/communicator.h"

namespace coxswain::collective {

struct CompletionSignal::State {
  mutable std::mutex mutex;
  std::condition_variable changed;
  std::uint64_t count = 0;
};

CompletionSignal::CompletionSignal() : state_(std::make_unique<State>()) {}
CompletionSignal::~CompletionSignal() = default;

std::uint64_t CompletionSignal::count() const {
  const std::lock_guard lock(state_->mutex);
  return state_->count;
}

void CompletionSignal::raise() {
  // Notified under the lock: the waiter may destroy the signal as soon as it sees the new count.
  const std::lock_guard lock(state_->mutex);
  ++state_->count;
  state_->changed.notify_all();
}

bool CompletionSignal::wait_change(std::uint64_t seen, Deadline deadline) {
  std::unique_lock lock(state_->mutex);
  const auto changed = [&] { return state_->count != seen; };
  if (deadline.at == TimePoint::max()) {
    state_->changed.wait(lock, changed);
    return true;
  }
  return state_->changed.wait_until(lock, deadline.at, changed);
}

}  // namespace coxswain::collective
