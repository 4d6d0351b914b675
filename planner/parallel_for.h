#pragma once
// A loop over threads whose result does not depend on their number. Private to planner/. Threads: those it starts,
// which end before it returns.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "planner/planner.h"

namespace coxswain::planner {

/// Runs `body(i)` for i in [0, count) on up to `request.threads` threads; bodies write by index. Once a stop is
/// requested the rest is left out.
template <class Body>
void parallel_for(std::size_t count, const Request& request, Body body) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < count && !request.stop.stop_requested(); i = next++) body(i);
  };
  if (request.threads <= 1 || count <= 1) return work();
  std::vector<std::jthread> pool;
  for (int t = 0; t < std::min<int>(request.threads, static_cast<int>(count)); ++t) pool.emplace_back(work);
}

}  // namespace coxswain::planner
