#pragma once
// Which nodes of a stage to recompute. Each node starts with its faster variant; where the other one saves memory at
// the stage's count of stashes it may be exchanged, for more time. Choosing the exchanges that make a stage fit for the
// least time is a knapsack: fractional and greedy choices bound it from both sides, and a list of undominated
// (bytes saved, time) pairs under those bounds solves it exactly, also for dozens of equal layers.
// Bytes are rounded up to a power of two small enough that all sums are exact: no order of summing changes an answer.
// (Where bytes are no whole numbers a stage that fills the memory to a millionth of a byte may count as too large.)
// Where the variants of a node differ in parameter or sync bytes the larger counts (in Piper's files they are equal).
// Called by piper_search. Threads: one per object.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "planner/problems/piper_sets.h"

namespace coxswain::planner {

/// The nodes of `upper` that are not in `lower`, all run with one tp degree (its position among the degrees).
struct PiperSpan {
  std::size_t lower = 0, upper = 0, degree = 0;
};

/// The least extra seconds lie between the two; the upper one is reached by a known choice.
struct SecondsRange {
  double low = 0, high = 0;
};

class PiperMemory {
 public:
  PiperMemory(const PiperInstance& instance, const PiperSets& sets);

  /// All tp degrees of the nodes' options, ascending.
  [[nodiscard]] const std::vector<std::int64_t>& degrees() const { return degrees_; }
  /// Every node of the span has an option for the degree.
  [[nodiscard]] bool has_options(const PiperSpan& span) const {
    const Sums& sums = sums_[span.degree];
    return sums.missing[span.lower] == sums.missing[span.upper];
  }
  /// With every node in its faster variant.
  [[nodiscard]] double seconds(const PiperSpan& span) const {
    const Sums& sums = sums_[span.degree];
    return sums.seconds[span.upper] - sums.seconds[span.lower];
  }
  [[nodiscard]] double parameter_bytes(const PiperSpan& span) const {
    const Sums& sums = sums_[span.degree];
    return sums.parameters[span.upper] - sums.parameters[span.lower];
  }
  /// Bytes over the memory with every node in its faster variant; at most 0 when it fits.
  [[nodiscard]] double excess(const PiperSpan& span, std::int64_t stashes) const {
    const Sums& sums = sums_[span.degree];
    return (sums.stash[span.upper] - sums.stash[span.lower]) * static_cast<double>(stashes) +
           (sums.fixed[span.upper] - sums.fixed[span.lower]) - memory_;
  }
  /// Some choice fits.
  [[nodiscard]] bool can_fit(const PiperSpan& span, std::int64_t stashes) {
    const Level& level = this->level(span.degree, stashes);
    return level.least[span.upper] - level.least[span.lower] <= memory_;
  }
  /// Requires, as the next two: can_fit.
  [[nodiscard]] SecondsRange bound_extra_seconds(const PiperSpan& span, std::int64_t stashes);
  [[nodiscard]] double least_extra_seconds(const PiperSpan& span, std::int64_t stashes);
  /// The nodes (positions, ascending) that a best choice recomputes.
  [[nodiscard]] std::vector<int> choose_recompute(const PiperSpan& span, std::int64_t stashes);

 private:
  /// By node: what exchanging the faster variant for the other one saves and costs.
  struct Exchange {
    bool possible = false;
    bool faster_recomputes = false;
    double seconds = 0, stash = 0, fixed = 0;
  };
  struct Sums {  // by set
    std::vector<double> missing, seconds, parameters, stash, fixed;
    std::vector<Exchange> exchanges;  // by node
  };
  struct Item {
    int node = 0;
    double saved = 0, seconds = 0;
  };
  struct Level {
    std::vector<double> least;  // by set, bytes of the leanest choice
    std::vector<Item> items;    // ascending in seconds per byte
  };
  struct Chosen {
    double seconds = 0;
    std::vector<int> nodes;
  };

  [[nodiscard]] Sums make_sums(const PiperInstance& instance, std::int64_t degree) const;
  [[nodiscard]] double round_up(double bytes) const;
  [[nodiscard]] const Level& level(std::size_t degree, std::int64_t stashes);
  [[nodiscard]] Level make_level(const Sums& sums, std::int64_t stashes) const;
  [[nodiscard]] Chosen solve(const PiperSpan& span, std::int64_t stashes);
  [[nodiscard]] bool holds(const PiperSpan& span, int node) const {
    return sets_.contains(span.upper, node) && !sets_.contains(span.lower, node);
  }

  const PiperSets& sets_;
  double memory_ = 0, quantum_ = 1;
  std::vector<std::int64_t> degrees_;
  std::vector<Sums> sums_;                                   // by degree
  std::vector<std::vector<std::unique_ptr<Level>>> levels_;  // by degree, by stashes
};

/// One exchange of the knapsack.
struct Saving {
  double bytes = 0, seconds = 0;
};
/// Positions of the savings that together save at least `needed` bytes for the least seconds.
/// Requires: ascending in seconds per byte, bytes > 0, seconds >= 0, and their sum saves enough.
[[nodiscard]] std::vector<std::size_t> choose_savings(const std::vector<Saving>& savings, double needed);

}  // namespace coxswain::planner
