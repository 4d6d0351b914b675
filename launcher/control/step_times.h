#pragma once
// How long steps took, in a memory that does not grow with the run: the median that is quoted, and what the steps after
// a given one took. Both can be written down and made again. Called by run_output and goodput. Threads: one.
#include <cstdint>
#include <map>
#include <vector>

#include "common/json.h"
#include "launcher/control/step_row.h"

namespace coxswain::launcher {

/// The median of numbers that come one by one: exact for the first 512, then within 0.05 % (counts by bins 0.1 % wide).
class RunningMedian {
 public:
  void add(double value);
  [[nodiscard]] bool empty() const { return values_.empty() && counts_.empty(); }
  /// 0 where there is none.
  [[nodiscard]] double value() const;
  [[nodiscard]] Json to_json() const;
  /// Of what to_json made.
  [[nodiscard]] static RunningMedian from_json(const Json& json);

 private:
  std::vector<double> values_;                   // as long as they are few
  std::map<std::int64_t, std::int64_t> counts_;  // by bin, of all
};

/// Step times of a run; the quoted one is the median of steps 5 and later (all, when there are fewer).
class StepTimes {
 public:
  void add(const StepRow& row);
  [[nodiscard]] double median_seconds() const;
  [[nodiscard]] Json to_json() const;
  [[nodiscard]] static StepTimes from_json(const Json& json);

 private:
  RunningMedian early_, steady_;
};

/// What steps took in all. `slower`: the part of `all` beyond what they took under the run's first plan.
struct StepSeconds {
  double all = 0, slower = 0;
};

/// Sums over the steps that count, each step once: a run that goes back forgets what it took since. Exact for the
/// newest 128 steps at least; farther back, where not every step is kept, on the line between its neighbours.
class StepSums {
 public:
  /// Steps come in ascending order, a step after the last one that counts.
  void add(std::int64_t step, const StepSeconds& seconds);
  /// Steps after `step` count no more. Returns what they took.
  double forget_after(std::int64_t step);
  [[nodiscard]] StepSeconds total() const;
  [[nodiscard]] Json to_json() const;
  [[nodiscard]] static StepSums from_json(const Json& json);

 private:
  std::map<std::int64_t, StepSeconds> until_;  // by step: of this one and all before
};

}  // namespace coxswain::launcher
