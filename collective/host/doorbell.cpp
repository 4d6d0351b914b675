#include "collective/host/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <vector>

namespace coxswain::collective {
namespace {

void futex_wake(std::atomic<std::uint32_t>& word) {
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, Deadline deadline) {
  timespec at = {};
  timespec* until = nullptr;
  if (deadline.at != TimePoint::max()) {
    // steady_clock is CLOCK_MONOTONIC, which FUTEX_WAIT_BITSET takes as an absolute time.
    const auto nanoseconds =
        std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.at.time_since_epoch()).count();
    at.tv_sec = nanoseconds / 1'000'000'000;
    at.tv_nsec = nanoseconds % 1'000'000'000;
    until = &at;
  }
  ::syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT_BITSET, expected, until, nullptr,
            FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void Doorbell::ring() const {
  // Sequentially consistent on both sides: either the ringer sees the sleeper, or the sleeper sees the new count.
  header_->bell.fetch_add(1, std::memory_order_seq_cst);
  const std::uint32_t sleeper = header_->sleeper.load(std::memory_order_seq_cst);
  if (sleeper == kFutex) futex_wake(header_->bell);
  if (sleeper == kPoll) {
    const std::uint64_t one = 1;
    // Fails only when the counter is full, and then the owner wakes anyway.
    [[maybe_unused]] const auto written = ::write(event_, &one, sizeof(one));
  }
}

void Doorbell::sleep(std::uint32_t seen, Deadline deadline) const {
  header_->sleeper.store(kFutex, std::memory_order_seq_cst);
  if (header_->bell.load(std::memory_order_seq_cst) == seen) futex_wait(header_->bell, seen, deadline);
  header_->sleeper.store(kAwake, std::memory_order_seq_cst);
}

void Doorbell::sleep(std::uint32_t seen, std::span<const pollfd> sockets, Deadline deadline) const {
  header_->sleeper.store(kPoll, std::memory_order_seq_cst);
  if (header_->bell.load(std::memory_order_seq_cst) == seen) {
    std::vector<pollfd> waited(sockets.begin(), sockets.end());
    waited.push_back({event_, POLLIN, 0});
    ::poll(waited.data(), waited.size(), poll_timeout(deadline));
  }
  header_->sleeper.store(kAwake, std::memory_order_seq_cst);
  std::uint64_t count = 0;
  [[maybe_unused]] const auto drained = ::read(event_, &count, sizeof(count));
}

int poll_timeout(Deadline deadline) {
  if (deadline.at == TimePoint::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.at - steady_clock().now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
}

void spin_once() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace coxswain::collective
