#pragma once
// Gathers the traced steps of a run, rank by rank as they come in with the steps, until the file can be written.
// Owned by the coordinator's process. Threads: one.
#include <optional>
#include <string>
#include <vector>

#include "cost_model/measured_trace.h"
#include "launcher/control/step_row.h"
#include "launcher/control/trace_steps.h"

namespace coxswain::launcher {

/// A trace of more actions than viewers open is refused. Errors: InvalidArgument.
[[nodiscard]] Result<void> check_trace_size(const plan::Plan& plan, const TraceSteps& steps);

/// A row's times on the clock of rank 0's node. `num_actions`: by rank. Errors: InvalidArgument (a rank sent other
/// actions than it has).
[[nodiscard]] Result<cost_model::TracedStep> traced_step(const StepRow& row,
                                                         const std::vector<std::size_t>& num_actions);

class RunTrace {
 public:
  RunTrace(TraceSteps steps, cost_model::TraceBasis basis);

  /// Takes the ranks' times out of a step of the range. Errors: InvalidArgument (a rank sent other actions than it
  /// has); the step is then left out.
  Result<void> add(StepRow& row);
  /// The last step of the range is in.
  [[nodiscard]] bool complete() const;
  /// The trace of the steps so far; nothing where there are none.
  [[nodiscard]] std::optional<std::string> text() const;
  [[nodiscard]] const TraceSteps& steps() const { return steps_; }

 private:
  TraceSteps steps_;
  std::vector<std::size_t> num_actions_;  // by rank
  std::vector<std::string> nodes_;        // of each rank
  std::string plan_hash_;
  double predicted_seconds_ = 0;
  cost_model::MeasuredTrace trace_;
  JsonArray in_;      // numbers of the steps so far
  JsonArray clocks_;  // by rank, of the last step
  bool complete_ = false;
};

}  // namespace coxswain::launcher
