#pragma once
// Time that passes only when something happens, and random numbers that are the same on every machine: what a
// simulation is made of. Events happen in the order of their time, equal times in the order in which they were planned.
// Called by the simulation of the coordinator. Threads: one.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "launcher/control/liveness.h"

namespace coxswain::bench {

class SimulatedTime {
 public:
  using Act = std::function<void()>;

  [[nodiscard]] TimePoint now() const { return now_; }
  /// Since the beginning.
  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(now_.time_since_epoch()).count(); }
  void at(TimePoint when, Act act) {
    heap_.push_back({std::max(when, now_), planned_++, std::move(act)});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  void in(double seconds, Act act) { at(launcher::after(now_, seconds), std::move(act)); }
  /// Lets the next thing happen. False: nothing will.
  bool next() {
    if (heap_.empty()) return false;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Entry entry = std::move(heap_.back());
    heap_.pop_back();
    now_ = entry.when;
    entry.act();
    return true;
  }

 private:
  struct Entry {
    TimePoint when;
    std::uint64_t planned = 0;
    Act act;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.when != b.when ? a.when > b.when : a.planned > b.planned;
  }

  std::vector<Entry> heap_;
  std::uint64_t planned_ = 0;
  TimePoint now_{};
};

/// SplitMix64 (Steele, Lea and Flood 2014): the standard library's distributions differ between libraries.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31U);
  }
  /// From 0 to `end` - 1. Requires: end >= 1.
  std::uint64_t below(std::uint64_t end) { return next() % end; }
  double between(double low, double high) {
    return low + (high - low) * (static_cast<double>(next() >> 11U) * 0x1p-53);
  }
  bool chance(double probability) { return between(0, 1) < probability; }

 private:
  std::uint64_t state_;
};

}  // namespace coxswain::bench
