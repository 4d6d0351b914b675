#pragma once
// From measurements to a plan for this run: cost model, search (or the plan that was given), checks, binding to ranks.
// Called by the coordinator in a thread of its own. Threads: pure apart from reading files.
#include <string>

#include "launcher/control/adaptation.h"
#include "launcher/control/corrections.h"
#include "launcher/control/local_start.h"
#include "launcher/control/measured_before.h"
#include "launcher/control/measurement.h"
#include "launcher/control/run_trace.h"
#include "launcher/job/job.h"
#include "plan/estimate.h"
#include "plan/plan.h"
#include "planner/planner.h"

namespace coxswain::launcher {

struct PlanChoice {
  ChosenPlan chosen;
  plan::Plan plan;
  plan::Estimate estimate;
  std::string summary;  // "dp2 pp1, micro 8 x 4, 1f1b"
  MeasuredCluster cluster;
  Json plan_file;  // INTERFACE section 4
  double search_seconds = 0;
  std::optional<cost_model::TraceBasis> trace;  // where steps are traced
  std::optional<planner::Move> move;            // where another one runs
};
/// `before`: rates and times that `measurements`, which then only name the devices, do not hold.
/// Errors: of the planner (ResourceExhausted: nothing fits); InvalidArgument (a given plan for another model or
/// cluster, or one that breaks a rule; a trace that would be too large); Unimplemented (mpi over several nodes).
[[nodiscard]] Result<PlanChoice> choose_plan(const CoordinatorStart& start, const Job& job,
                                             const Measurements& measurements, const std::string& backend,
                                             const std::optional<MeasuredBefore>& before);

/// Nodes that are gone, what was learnt of the others, and the plan that ran on all of them.
struct LostNodes {
  std::string running_plan;    // its JSON
  std::vector<int> then, now;  // numbers of this run's nodes: lost when that plan was chosen, and lost by now
  Seconds horizon{0};          // for how long the next plan is to run
  Corrections known_then{}, known_now{};  // of devices and links
};
/// The best plan for the nodes that are left, as what is known now has them, the move to it priced
/// (docs/replanning.md). The ranks of `measurements` are those of all nodes. Errors: of the planner (no plan for what
/// is left).
[[nodiscard]] Result<PlanChoice> plan_again(const CoordinatorStart& start, const Job& job,
                                            const Measurements& measurements,
                                            const std::optional<MeasuredBefore>& before, const LostNodes& lost);
/// The running plan as it was predicted when it was chosen. `ranks` and `steps` are left empty. Errors: of files.
[[nodiscard]] Result<LookedRun> predict_running(const CoordinatorStart& start, const Job& job,
                                                const Measurements& measurements,
                                                const std::optional<MeasuredBefore>& before, const LostNodes& lost);

}  // namespace coxswain::launcher
