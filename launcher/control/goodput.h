#pragma once
// Where a run's time went: steps that count, and losses by class; what each failure cost. Fed with the run's events and
// step rows as they come, each with its time; keeps little, however long the run. Called by run_output.
// Threads: one; no clock. Source: docs/failures.md, "Goodput"; research/runtime.md 2.4.
#include <cstdint>
#include <optional>

#include "common/clock.h"
#include "common/json.h"
#include "launcher/control/goodput_report.h"
#include "launcher/control/step_row.h"
#include "launcher/control/step_times.h"

namespace coxswain::launcher {

class Goodput {
 public:
  /// `begin`: of the run.
  explicit Goodput(TimePoint begin) : begin_(begin), classed_until_(begin) {}

  /// Events and rows in the order in which they are recorded; times never go back. Those that cost nothing are passed
  /// over.
  void add(const Json& event, TimePoint at);
  void add(const StepRow& row, TimePoint at);
  /// Of a run that ends at `end`.
  [[nodiscard]] GoodputReport report(TimePoint end) const;
  /// All of it, for a coordinator that is restarted.
  [[nodiscard]] Json to_json() const;
  /// Of what to_json made.
  [[nodiscard]] static Goodput from_json(const Json& json);

 private:
  enum class Phase { Starting, Stepping, Down };
  void failed(const Json& event, TimePoint at);
  void add_late(const StepRow& row);
  void generation_started(const Json& event);
  double pass(TimePoint until);
  double claim(double seconds);
  void claim_copies();
  void recovering(double seconds);

  TimePoint begin_, classed_until_;
  // Each second has one class, so that they add up: ranks' steps overlap, and a coordinator that stood still hears of
  // several at once. What passed between the first and the last of them is taken out of `unclassed_seconds_`.
  double unclassed_seconds_ = 0;
  double copy_seconds_ = 0;  // of checkpoints, not taken out of it yet
  Phase phase_ = Phase::Starting;
  int generation_ = 0;
  int failed_generation_ = -1;    // the newest one that failed
  double under_way_seconds_ = 0;  // of its last step, which was not known to be taken: among `recomputed`
  std::int64_t last_step_ = 0;
  GoodputReport spent_;                      // so far; without total, useful, slower_plan and other
  StepSums counted_;                         // the steps that count
  StepTimes plan_times_;                     // under the plan that runs
  std::optional<double> reference_seconds_;  // a step under the first plan that took one; once there is another
  bool block_open_ = false;                  // the newest one waits for the next generation
};

}  // namespace coxswain::launcher
