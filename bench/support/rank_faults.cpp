// Loaded into every process of a disturbed run (LD_PRELOAD): faults that come from within, each at a signal of its own.
// `exit`: the process ends with exit code 3. `throws`, to one thread: its next `new` throws. `grows`, the
// same: it wants so much more memory that a limit below what the process has is felt. `clock`: the process's clock of
// the day goes so many seconds on (the signal's value), the one that counts from the start does not; what `faketime`
// does, without its file that is looked at on each call. The kernel's clock is not touched: a wait until a time of the
// day (gRPC's, by absl) is told to it by that. Nothing else changes. Threads: handlers set flags only.
// Source: man 2 sigqueue, man 2 tgkill, man 2 futex.
#include <dlfcn.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdarg>
#include <cstdlib>
#include <ctime>
#include <new>
#include <stdexcept>

#include "bench/support/rank_faults.h"

namespace {

using coxswain::bench::rank_fault_signals;

constexpr std::size_t kGrowBytes = std::size_t{1} << 28;

// Read by every `new`: no call behind them.
thread_local std::atomic<bool> throws __attribute__((tls_model("initial-exec"))){false};
thread_local std::atomic<bool> grows __attribute__((tls_model("initial-exec"))){false};
std::atomic<long> ahead_seconds{0};

using Syscall = long (*)(long, ...);
// Known before any thread: a call may come from a place where nothing may be looked up (a child after fork).
std::atomic<Syscall> real_syscall{nullptr};
Syscall find_syscall() { return reinterpret_cast<Syscall>(::dlsym(RTLD_NEXT, "syscall")); }

void on_exit_signal(int) { ::_exit(3); }
void on_throw_signal(int) { throws.store(true); }
void on_grow_signal(int) { grows.store(true); }
void on_clock_signal(int, siginfo_t* info, void*) { ahead_seconds.fetch_add(info->si_value.sival_int); }

void install(int number, void (*plain)(int), void (*with_value)(int, siginfo_t*, void*)) {
  struct sigaction action{};
  if (plain != nullptr)
    action.sa_handler = plain;
  else
    action.sa_sigaction = with_value;
  action.sa_flags = SA_RESTART | (plain != nullptr ? 0 : SA_SIGINFO);
  sigaction(number, &action, nullptr);
}

__attribute__((constructor)) void begin() {
  real_syscall.store(find_syscall());
  const auto signals = rank_fault_signals();
  install(signals.exit, &on_exit_signal, nullptr);
  install(signals.throws, &on_throw_signal, nullptr);
  install(signals.grows, &on_grow_signal, nullptr);
  install(signals.clock, nullptr, &on_clock_signal);
}

void* allocate(std::size_t size) {
  if (throws.load(std::memory_order_relaxed) && throws.exchange(false))
    throw std::runtime_error("an exception on purpose");
  if (grows.load(std::memory_order_relaxed) && grows.exchange(false)) {
    void* more = std::malloc(kGrowBytes);
    if (more == nullptr) throw std::bad_alloc();
    std::free(more);
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

extern "C" {

int clock_gettime(clockid_t clock, timespec* at) noexcept {
  using Function = int (*)(clockid_t, timespec*);
  static const auto real = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, "clock_gettime"));
  const int code = real != nullptr ? real(clock, at) : static_cast<int>(::syscall(SYS_clock_gettime, clock, at));
  if (code == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    at->tv_sec += ahead_seconds.load(std::memory_order_relaxed);
  return code;
}

/// As the kernel takes it: six words, whatever the call wants. absl waits by it.
long syscall(long number, ...) noexcept {
  std::va_list arguments;
  va_start(arguments, number);
  long word[6];
  for (long& each : word) each = va_arg(arguments, long);
  va_end(arguments);
  Syscall real = real_syscall.load(std::memory_order_relaxed);
  if (real == nullptr) real = find_syscall();
  timespec until{};
  // Another wait's time is a span.
  const bool until_time_of_day =
      number == SYS_futex && (word[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && (word[1] & FUTEX_CLOCK_REALTIME) != 0;
  if (until_time_of_day && word[3] != 0) {
    until = *reinterpret_cast<const timespec*>(word[3]);
    until.tv_sec = std::max<time_t>(0, until.tv_sec - ahead_seconds.load(std::memory_order_relaxed));
    word[3] = reinterpret_cast<long>(&until);
  }
  return real(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}

int gettimeofday(timeval* __restrict at, void* __restrict) noexcept {
  timespec now{};
  if (clock_gettime(CLOCK_REALTIME, &now) != 0) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* at) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (at != nullptr) *at = now.tv_sec;
  return now.tv_sec;
}

}  // extern "C"
