#include "worker/service/action_watch.h"

#include <algorithm>
#include <chrono>

#include "common/processor_time.h"
#include "common/thread_name.h"

namespace coxswain::worker {
namespace {

// Before the limit so much is left to see whether the thread computes: many turns of the smallest share of a core.
constexpr double kLookFraction = 0.1, kLongestLookSeconds = 2;
// A thread that waits takes less of the time, one that spins at least the smallest share of a core.
constexpr double kSpins = 0.02;

TimePoint::duration duration_of(double seconds) {
  return std::chrono::duration_cast<TimePoint::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace

ActionWatch::ActionWatch(executor::Compute& compute, Seconds limit, std::function<void(const HungAction&)> hung)
    : compute_(compute), limit_(limit), hung_(std::move(hung)), thread_([this] { watch(); }) {}

ActionWatch::~ActionWatch() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
}

Result<void> ActionWatch::start(const plan::Action& action) {
  {
    // The watch wakes by itself: a notification for every action would cost more than many of them.
    const std::lock_guard lock(mutex_);
    running_ = Running{action, steady_clock().now(), ::pthread_self()};
  }
  return compute_.start(action);
}

Result<bool> ActionWatch::finished() {
  Result<bool> result = compute_.finished();
  if (!result || *result) {
    const std::lock_guard lock(mutex_);
    running_.reset();
  }
  return result;
}

void ActionWatch::watch() {
  name_thread("action watch");
  const double look = std::min(limit_.value * kLookFraction, kLongestLookSeconds);
  std::optional<TimePoint> seen;  // when the action that was looked at before began
  double computed = 0;            // by its thread, then
  TimePoint looked_at;
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, duration_of(look), [this] { return ends_; })) {
    const TimePoint now = steady_clock().now();
    if (!running_ || std::chrono::duration<double>(now - running_->since).count() < limit_.value - look) {
      seen.reset();
      continue;
    }
    const double so_far = processor_time_of(running_->thread).value;
    if (seen != running_->since) {
      seen = running_->since;
      computed = so_far;
      looked_at = now;
      continue;
    }
    const double running = std::chrono::duration<double>(now - running_->since).count();
    if (running < limit_.value) continue;
    const double between = std::chrono::duration<double>(now - looked_at).count();
    const HungAction found{running_->action, Seconds(running), so_far - computed > kSpins * between};
    lock.unlock();
    hung_(found);
    return;
  }
}

}  // namespace coxswain::worker
