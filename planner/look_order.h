#pragma once
// Which combinations a large search looks at next. Called by the search. Threads: one.
#include <map>
#include <tuple>
#include <vector>

#include "planner/search.h"

namespace coxswain::planner {

/// A combination on its way through a search.
struct Task {
  Combination combination;
  Cost guess = 0;  // before a look
  Cost look = kNoCost;
};

/// A look is about its guess times what looks of its group were to their guesses, so groups of which nothing fits, or
/// nothing comes near its guess, fall behind. A group has the same axes, schedule and about as many stages; `by_count`:
/// and about as many micro-batches, since gathers of ZeRO and bubbles count with each of them.
class LookOrder {
 public:
  explicit LookOrder(const std::vector<Task>& tasks, bool by_count = false);
  LookOrder(const LookOrder&) = delete;
  LookOrder& operator=(const LookOrder&) = delete;

  /// Up to `most`, at most one of a group; none that is expected above `best`.
  [[nodiscard]] std::vector<std::size_t> next(std::size_t most, Cost best);
  /// What a look at `task` said; kNoCost: nothing fits.
  void saw(std::size_t task, Cost look);

 private:
  struct Group {
    std::vector<std::size_t> tasks;  // ascending in guess
    std::size_t done = 0;
    double ratio = 1.0;
  };
  std::map<std::tuple<int, int, int, int>, Group> groups_;
  std::vector<Group*> group_of_;  // by task
  std::vector<Cost> guesses_;
};

}  // namespace coxswain::planner
