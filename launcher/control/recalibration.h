#pragma once
// From a few steps of a run to what its devices and links really are, and to a plan for that where one does more.
// Called by the coordinator in a thread of its own. Threads: pure apart from reading files. Source: docs/replanning.md.
#include <optional>
#include <vector>

#include "launcher/control/adaptation.h"
#include "launcher/control/choose_plan.h"
#include "launcher/control/step_row.h"

namespace coxswain::launcher {

struct LookRequest {
  int generation = 0;
  std::vector<StepRow> rows;       // with the times of all ranks, of steps that follow each other
  LostNodes running;               // the plan, and what was known when it was chosen and is now; horizon not yet
  std::vector<RankBinding> ranks;  // of the plan
  std::int64_t steps_left = 0;     // of the run
  bool may_move = false;           // else no plan is looked for
};

struct Recalibration {
  Differences differences;
  std::optional<PlanChoice> choice;  // a plan whose steps, the move to it included, are shorter by kLeastGain or more
};
/// The horizon is what the steps that are left take as they were measured. Nothing is searched where nothing is off and
/// all that is known was known when the plan was chosen.
/// Errors: of files; InvalidArgument (a rank sent other actions than it has); of the planner.
[[nodiscard]] Result<Recalibration> recalibrate(const CoordinatorStart& start, const Job& job,
                                                const Measurements& measurements,
                                                const std::optional<MeasuredBefore>& before,
                                                const LookRequest& request);

}  // namespace coxswain::launcher
