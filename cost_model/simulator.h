#pragma once
// Private to cost_model/: what a run in virtual time leaves, before it is turned into an Estimate.
// Threads: pure values.
#include <vector>

#include "cost_model/action_times.h"
#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"

namespace coxswain::cost_model {

/// One action of one role, in ticks.
struct ActionRun {
  bool is_compute = false;
  Ticks start = -1, transfer_start = -1, end = -1;
  ComputeTicks nominal;  // compute only; end - start - nominal.total() was lost to copies
};

struct VirtualRun {
  std::vector<std::vector<ActionRun>> roles;  // by role, then action
  Ticks makespan = 0;                         // end of the last action
};

/// Runs every role's program to its end. Errors: Internal when nothing can go on (a plan that validate refuses).
[[nodiscard]] Result<VirtualRun> run_in_virtual_time(const CostModel& cost, const plan::Plan& plan);

/// C20, C21: the run's parts, memory and rates.
[[nodiscard]] plan::Estimate make_estimate(const CostModel& cost, const plan::Plan& plan, const VirtualRun& run);

}  // namespace coxswain::cost_model
