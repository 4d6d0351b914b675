#pragma once
// What a run leaves and says: its files, the console's lines, the outcome. After a restart of the coordinator all is
// told to it again in the same order; what stands in the files already is passed over. Called by
// coordinator_process.cpp. Threads: one.
#include <optional>
#include <string>
#include <vector>

#include "common/exit_code.h"
#include "launcher/control/choose_plan.h"
#include "launcher/control/console.h"
#include "launcher/control/coordinator_input.h"
#include "launcher/control/event_file.h"
#include "launcher/control/goodput.h"
#include "launcher/control/run_directory.h"
#include "launcher/control/run_trace.h"
#include "launcher/control/step_times.h"
#include "launcher/job/job.h"

namespace coxswain::launcher {

/// One line of JSON on stdout, which run_train reads.
void tell(const Json& object);

class RunOutput {
 public:
  /// `start`, `job` and `clock` outlive it. `job`: nullptr where there is none.
  RunOutput(const CoordinatorStart& start, const Job* job, const Clock& clock);

  /// The coordinator was restarted: finds out what was told before. `then`: a state of the run so far, the newest;
  /// null: none. Errors: FailedPrecondition, DataLoss.
  [[nodiscard]] Result<void> find_told(const Json& then);
  /// What the next lines are told at.
  void set_time(TimePoint now) { now_ = now; }
  /// The files that a plan follows from, and the plan. Can be repeated. Errors: FailedPrecondition (disk).
  [[nodiscard]] Result<void> write_inputs(const PlanChoice& choice) const;
  /// The same of a plan for fewer nodes: plan-N.json, cluster-N.json.
  [[nodiscard]] Result<void> write_changed(const PlanChoice& choice, int generation) const;
  /// Steps will be traced.
  void begin_trace(cost_model::TraceBasis basis) { trace_.emplace(start_.trace_steps, std::move(basis)); }
  /// There is a plan: from now on the run writes; what happened before was kept back, so that one that never started
  /// leaves nothing.
  void begin(const PlanRecord& plan);
  /// Another plan from `generation` on.
  void go_on(const PlanRecord& plan, int generation);
  void record(Json event);
  void record_step(StepRow row);
  /// Of what was told so far, all that later lines and the outcome need; small, however long the run.
  [[nodiscard]] Json state() const;
  /// In place of all that was told until `state` was made.
  void go_on_from(const Json& state);
  /// A member of the outcome.
  void add_result(const std::string& key, Json value) { result_[key] = std::move(value); }
  /// Tells the outcome.
  void end(const RunEnded& ended);
  /// What the disk refused since the last call.
  [[nodiscard]] std::optional<Error> take_disk_error() { return std::exchange(disk_error_, std::nullopt); }

 private:
  void record_goodput();
  void write_event(Json event);
  void tell_event(const Json& event);
  void tell_step(StepRow& row);
  void trace_step(StepRow& row);
  void add_scalars(const StepRow& row);
  void write_trace();
  void note(const Result<void>& written);

  const CoordinatorStart& start_;
  const Job* job_;
  const Clock& clock_;
  RunDirectory files_;
  TimePoint now_;
  std::int64_t events_ = 0, rows_ = 0;            // so far
  std::int64_t events_told_ = 0, rows_told_ = 0;  // by the coordinator before this one: the first so many
  std::vector<Json> held_back_;
  bool writing_ = false;
  std::string plan_text_;
  Prediction prediction_;
  StepTimes times_;
  Goodput goodput_;
  std::optional<RunTrace> trace_;
  std::optional<EventFile> scalars_;  // from the first step that is told
  bool scalars_missed_ = false;       // some could not be written, which was said
  StepRow last_;
  std::optional<double> validation_loss_;
  std::optional<Error> disk_error_;
  JsonObject result_;
};

}  // namespace coxswain::launcher
