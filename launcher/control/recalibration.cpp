#include "launcher/control/recalibration.h"

#include <algorithm>

namespace coxswain::launcher {
namespace {

// Less is within what a prediction is off by.
constexpr double kLeastGain = 0.05;

double median_step_seconds(const std::vector<StepRow>& rows) {
  std::vector<double> seconds;
  for (const StepRow& row : rows) seconds.push_back(row.step_seconds);
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

bool is_worth_moving(const PlanChoice& choice) {
  if (!choice.move || choice.move->keeps_running_plan || !choice.move->effective_step) return false;
  return choice.move->running_step &&
         choice.move->effective_step->value <= (1 - kLeastGain) * choice.move->running_step->value;
}

}  // namespace

Result<Recalibration> recalibrate(const CoordinatorStart& start, const Job& job, const Measurements& measurements,
                                  const std::optional<MeasuredBefore>& before, const LookRequest& request) {
  Recalibration made;
  made.differences.corrections = request.running.known_now;
  if (request.rows.empty()) return made;
  COX_TRY(LookedRun run, predict_running(start, job, measurements, before, request.running));
  run.ranks = request.ranks;
  const std::vector<std::size_t> num_actions = cost_model::num_actions_by_rank(run.basis.plan);
  for (const StepRow& row : request.rows) {
    COX_TRY(cost_model::TracedStep step, traced_step(row, num_actions));
    run.steps.push_back(std::move(step));
  }
  made.differences = find_differences(run, request.running.known_then, request.running.known_now);
  LostNodes running = request.running;
  running.known_now = made.differences.corrections;
  if (!request.may_move || running.known_now == running.known_then) return made;
  running.horizon = Seconds(static_cast<double>(request.steps_left) * median_step_seconds(request.rows));
  COX_TRY(PlanChoice choice, plan_again(start, job, measurements, before, running));
  if (is_worth_moving(choice)) made.choice = std::move(choice);
  return made;
}

}  // namespace coxswain::launcher
