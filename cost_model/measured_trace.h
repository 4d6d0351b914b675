#pragma once
// The trace of a run: what every rank measured, action by action, beside what the simulator predicted for the same
// action of the same plan. Called by the launcher, which gathers the ranks' times. Threads: pure.
// Format and meaning of every field: docs/traces.md.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cost_model/cost_model.h"
#include "plan/program.h"

namespace coxswain::cost_model {

/// One step of one rank as it measured it.
struct MeasuredStep {
  double begin = 0;                // seconds on the clock of rank 0's node
  double seconds = 0;              // of the whole step
  std::vector<double> start, end;  // by action of the rank's list, seconds since `begin`
};

/// One step of all ranks.
struct TracedStep {
  std::int64_t step = 0;
  std::vector<MeasuredStep> ranks;
};

/// What the plan says of every step, and where each rank ran.
struct TraceBasis {
  plan::Plan plan;
  Simulation predicted;
  std::vector<plan::Group> groups;  // make_groups of that plan
  std::vector<std::string> nodes;   // of each rank, in words
};

/// Length of every rank's list, which `start` and `end` must have.
[[nodiscard]] std::vector<std::size_t> num_actions_by_rank(const plan::Plan& plan);

/// By rank and action: seconds from when all partners of a communication had come to its end; of a computation, and of
/// what was buffered before a partner came, from its own start. Requires: as MeasuredTrace::add.
[[nodiscard]] std::vector<std::vector<double>> moving_seconds(const TraceBasis& basis, const TracedStep& step);
/// The same as `predicted`, a simulation of `plan`, has it.
[[nodiscard]] std::vector<std::vector<double>> moving_seconds(const plan::Plan& plan, const Simulation& predicted);

/// Grows step by step, so that nothing is left to do but writing when the last one is in.
class MeasuredTrace {
 public:
  explicit MeasuredTrace(TraceBasis basis);
  MeasuredTrace(MeasuredTrace&&) noexcept;
  ~MeasuredTrace();

  /// Requires: all ranks, lists of num_actions_by_rank, finite times, steps in order.
  /// Cost: 1 KB of text for an action.
  void add(const TracedStep& step);
  /// Chrome/Perfetto JSON; `about` is what else a reader should know (`otherData`).
  [[nodiscard]] std::string text(JsonObject about) const;

 private:
  class Writer;
  std::unique_ptr<Writer> writer_;
};

}  // namespace coxswain::cost_model
