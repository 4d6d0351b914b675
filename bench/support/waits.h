#pragma once
// Waiting in programs that watch other processes. Threads: any.
#include <chrono>
#include <thread>

#include "common/clock.h"

namespace coxswain::bench {

inline constexpr double kLookSeconds = 0.005;

inline void wait(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

[[nodiscard]] inline double seconds_since(TimePoint begin) {
  return std::chrono::duration<double>(steady_clock().now() - begin).count();
}

}  // namespace coxswain::bench
