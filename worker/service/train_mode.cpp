#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>

#include "checkpoint/folder.h"
#include "common/bytes_io.h"
#include "common/json.h"
#include "executor/executor.h"
#include "plan/experts.h"
#include "plan/layout/mesh_groups.h"
#include "plan/program.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "worker/engine/engine.h"
#include "worker/service/action_watch.h"
#include "worker/service/checkpoint_saver.h"
#include "worker/service/clock_offset.h"
#include "worker/service/exchange.h"
#include "worker/service/gather_checkpoint.h"
#include "worker/service/gather_held.h"
#include "worker/service/modes.h"
#include "worker/service/world.h"

namespace coxswain::worker {
namespace {

double seconds_since(TimePoint begin) { return std::chrono::duration<double>(steady_clock().now() - begin).count(); }

/// Peak resident set of this process, from /proc.
std::int64_t resident_bytes() {
  std::ifstream in("/proc/self/status");
  std::string word;
  while (in >> word) {
    std::int64_t kibibytes = 0;
    if (word == "VmHWM:" && in >> kibibytes) return kibibytes * 1024;
  }
  return 0;
}

/// Part of `step_seconds` in which no compute action ran.
double bubble_fraction(const plan::RankProgram& program, const std::vector<executor::ActionTime>& times,
                       double step_seconds) {
  double busy = 0;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (plan::is_compute(program.actions[i].kind)) busy += times[i].end - times[i].start;
  }
  return step_seconds > 0 ? std::clamp(1 - busy / step_seconds, 0.0, 1.0) : 0;
}

/// Everything a rank needs to step; members refer to each other, so it stays where it was made.
class Trainer {
 public:
  /// `kept`: let go once every rank has what it needs of it.
  Trainer(AgentLink& link, const Assignment& assignment, std::optional<KeptState>& kept)
      : link_(link), assignment_(assignment), kept_(kept), generation_(assignment.generation) {}

  Result<void> prepare(const std::string& job_key) {
    COX_TRY(graph_, load_graph(assignment_));
    COX_TRY(const Json json, parse_json(assignment_.plan_json));
    COX_TRY(plan_, plan::plan_from_json(json));
    if (const std::string hash = model::model_hash(graph_); hash != plan_.model_hash) {
      return Error{ErrorCode::InvalidArgument,
                   "this node's model is not the one that the plan is for",
                   assignment_.pt2,
                   plan_.model_hash,
                   hash,
                   "put the same model file on every node"};
    }
    choices_ = plan::expert_choices(graph_);
    COX_TRY(world_, World::connect(link_, assignment_, job_key));
    COX_TRY_VOID(world_->make_groups(plan::rank_groups(plan_, graph_, assignment_.rank),
                                     Deadline::after(steady_clock(), assignment_.connect_timeout)));
    EngineOptions options;
    options.graph = &graph_;
    options.plan = &plan_;
    options.rank = assignment_.rank;
    options.settings = assignment_.settings;
    options.communicators = world_->communicators();
    options.step_timeout = assignment_.step_timeout;
    if (!holds()) kept_.reset();  // before there is as much again
    COX_TRY(engine_, make_engine(options));
    COX_TRY_VOID(load_checkpoint(job_key));
    program_ = plan::make_rank_program(plan_, graph_, assignment_.rank);
    const int stage = plan::place_of(plan_, assignment_.rank).stage;
    evaluation_program_ =
        plan::make_rank_program(plan_, graph_, assignment_.rank, plan::evaluation_actions(plan_, stage));
    if (assignment_.action_timeout > Seconds(0))
      watch_.emplace(*engine_, assignment_.action_timeout, [this](const HungAction& hung) { report_hung(hung); });
    executor::Compute& compute = watch_ ? static_cast<executor::Compute&>(*watch_) : *engine_;
    executor_.emplace(program_, compute, world_->communicators(), steady_clock());
    evaluation_executor_.emplace(evaluation_program_, compute, world_->communicators(), steady_clock());
    for (executor::Executor* one : {&*executor_, &*evaluation_executor_})
      one->tell_stalls(assignment_.stall_timeout, [this](const std::string& pending) { report_stalled(pending); });
    COX_TRY(const auto pieces, exchange_pieces(world_->all(), engine_->pieces(), step_deadline()));
    num_elements_ = checkpoint::num_elements(pieces);
    if (!assignment_.checkpoint_directory.empty()) {
      COX_TRY(saver_, CheckpointSaver::make(assignment_, job_key, pieces, world_->all(), step_deadline()));
    }
    COX_TRY_VOID(world_->all().barrier(step_deadline()).wait(step_deadline()));
    is_prepared_ = true;
    if (kept_) {
      kept_.reset();
      engine_->reset_peak_memory();
    }
    told_ = engine_->progress().step;
    return {};
  }

  /// After it failed: of a step that ended here and was told, or of the one that this generation began from.
  void keep() {
    if (!is_prepared_) return;  // what it began with is still there
    kept_.reset();
    HeldState state = engine_->hold_state();
    const bool whole = state.progress.step == told_ && state.progress.step < assignment_.settings.steps;
    if (whole) kept_ = KeptState{generation_, num_elements_, std::move(state)};
  }

  Result<void> run() {
    std::int64_t step = engine_->progress().step;
    while (step < assignment_.settings.steps && !stops_) COX_TRY_VOID(run_step(++step));
    if (saver_) COX_TRY_VOID(saver_->finish(step_deadline()));
    // No rank takes its memory away while another still reads from it.
    COX_TRY_VOID(world_->all().barrier(step_deadline()).wait(step_deadline()));
    control::WorkerReport report;
    report.mutable_finished()->set_last_step(step);
    link_.report(report);
    return {};
  }

 private:
  /// What this generation begins from, or a part of it.
  [[nodiscard]] bool holds() const {
    return kept_ && assignment_.from_memory && kept_->state.progress == *assignment_.from_memory &&
           kept_->generation == assignment_.from_memory_generation;
  }
  [[nodiscard]] Deadline step_deadline() const { return Deadline::after(steady_clock(), assignment_.step_timeout); }

  /// On the watch's thread. The coordinator ends this process: nothing here can.
  void report_hung(const HungAction& hung) {
    char limit[48], got[64];
    std::snprintf(limit, sizeof limit, "at most %.3g s", assignment_.action_timeout.value);
    std::snprintf(got, sizeof got, "%.3g s so far, %s", hung.running.value, hung.spins ? "computing" : "waiting");
    const Error error{ErrorCode::DeadlineExceeded,
                      "an action makes no progress",
                      "rank " + std::to_string(assignment_.rank) + ", " + plan::to_text(hung.action),
                      limit,
                      got,
                      hung.spins ? "" : "see the other ranks: inside a mesh it waits for them"};
    control::WorkerReport report;
    report.mutable_failure()->set_error_json(proto::error_to_text(error));
    report.mutable_failure()->set_peer_lost(!hung.spins);
    link_.report(report);
  }

  /// Others may be at work that this rank waits for: only where all say so does nobody go on.
  void report_stalled(const std::string& pending) {
    control::WorkerReport report;
    report.set_stalled(pending);
    link_.report(report);
  }

  /// The coordinator, or the agents of the nodes that hold its shards, have verified it. What is not there any more, or
  /// cannot be read, was damaged since.
  Result<void> load_checkpoint(const std::string& job_key) {
    if (assignment_.from_memory) return load_from_memory();
    if (assignment_.checkpoint_from.empty()) return {};
    Result<void> loaded = read_checkpoint(job_key);
    if (loaded) return {};
    Error error = std::move(loaded).error();
    const bool lost = error.code == ErrorCode::NotFound || error.code == ErrorCode::FailedPrecondition ||
                      error.code == ErrorCode::PermissionDenied;
    if (lost) error.code = ErrorCode::DataLoss;
    return error;
  }

  Result<void> load_from_memory() {
    const checkpoint::Progress& from = *assignment_.from_memory;
    COX_TRY(const auto gathered,
            gather_held(kept_ ? &kept_->state : nullptr, engine_->held_pieces(), world_->all(), step_deadline()));
    if (auto loaded = engine_->load_state(checkpoint::Reader::over(gathered.pieces), from); !loaded) {
      // Known to be whole when it was chosen: who held it is gone since. The next generation takes a checkpoint.
      Error error = std::move(loaded).error();
      if (error.code == ErrorCode::NotFound) error.code = ErrorCode::DataLoss;
      return error;
    }
    generation_ = assignment_.from_memory_generation;
    return {};
  }

  Result<void> read_checkpoint(const std::string& job_key) {
    const std::filesystem::path folder = assignment_.checkpoint_from;
    if (!assignment_.from_manifest.empty()) {
      COX_TRY(const auto manifest, gather_checkpoint(assignment_, engine_->held_pieces(), job_key, step_deadline()));
      COX_TRY(const auto reader, checkpoint::Reader::open(folder, manifest));
      return engine_->load_state(reader, manifest.progress);
    }
    COX_TRY(const std::string text, read_file(folder / checkpoint::kManifestFile));
    COX_TRY(const auto manifest, checkpoint::parse_manifest(text));
    COX_TRY(const auto reader, checkpoint::Reader::open(folder, manifest));
    return engine_->load_state(reader, manifest.progress);
  }

  Result<void> save_if_due(const StepNumbers& numbers) {
    stops_ = numbers.asks_stop;
    if (!saver_) return {};
    const std::int64_t every = assignment_.checkpoint_every;
    const bool due = (every > 0 && numbers.step % every == 0) || numbers.asks_save || stops_ ||
                     numbers.step == assignment_.settings.steps;
    return due ? saver_->save(*engine_, link_, step_deadline()) : Result<void>();
  }

  [[nodiscard]] bool traced(std::int64_t step) const {
    return std::any_of(assignment_.traced_steps.begin(), assignment_.traced_steps.end(),
                       [step](const auto& steps) { return step >= steps.first && step <= steps.second; });
  }

  /// The executor's times, which it keeps in one place for every step, moved to the step's begin.
  void add_trace(control::StepReport& report, TimePoint begin) const {
    control::StepTrace& trace = *report.mutable_trace();
    trace.set_begin_nanoseconds(nanoseconds_of(begin));
    trace.set_clock_offset_nanoseconds(clock_offset_.offset_nanoseconds);
    trace.set_clock_error_nanoseconds(clock_offset_.error_nanoseconds);
    const double ahead = std::chrono::duration<double>(executor_->step_start() - begin).count();
    for (const executor::ActionTime& time : executor_->times()) {
      trace.add_start_seconds(time.start + ahead);
      trace.add_end_seconds(time.end + ahead);
    }
  }

  void add_expert_tokens(control::StepReport& report, const std::vector<std::int64_t>& tokens) const {
    auto next = tokens.begin();
    for (const plan::ExpertChoice& choice : choices_) {
      control::ExpertTokens& told = *report.add_expert_tokens();
      told.set_block(choice.block);
      told.mutable_tokens()->Add(next, next + choice.experts);
      next += choice.experts;
    }
  }

  Result<void> run_step(std::int64_t step) {
    if (traced(step)) {
      // Clocks drift: the offset is measured when it is needed.
      if (last_traced_ != step - 1) {
        COX_TRY(clock_offset_, measure_clock_offset(world_->all(), assignment_.nodes, steady_clock(), step_deadline()));
      }
      last_traced_ = step;
    }
    const TimePoint begin = steady_clock().now();
    engine_->ask(link_.take_save(), link_.stop_asked());
    COX_TRY_VOID(engine_->begin_step(step));
    executor_->begin_step();
    const auto ran = executor_->run_step(world_->signal(), step_deadline());
    // Once its parameters are updated here the step is taken, whatever fails then.
    if (!ran && engine_->progress().step < step) return ran.error();
    COX_TRY(const StepNumbers numbers, engine_->end_step());
    generation_ = assignment_.generation;
    const double seconds = seconds_since(begin);

    control::WorkerReport report;
    control::StepReport& to = *report.mutable_step();
    to.set_step(step);
    to.set_loss(numbers.loss);
    to.set_grad_norm(numbers.grad_norm);
    to.set_learning_rate(numbers.learning_rate);
    to.set_step_seconds(seconds);
    to.set_bubble_fraction(bubble_fraction(program_, executor_->times(), seconds));
    to.set_skipped(numbers.skipped);
    to.set_not_finite(numbers.not_finite);
    to.set_loss_scale(numbers.loss_scale);
    if (assignment_.rank == 0) add_expert_tokens(to, numbers.expert_tokens);
    if (traced(step) && ran) add_trace(to, begin);
    const bool validates = assignment_.validation_every > 0 &&
                           (step % assignment_.validation_every == 0 || step == assignment_.settings.steps);
    Result<void> done = ran ? Result<void>() : Result<void>(ran.error());
    if (validates && ran) {
      const auto loss = evaluate();
      if (loss)
        to.set_validation_loss(*loss);
      else
        done = loss.error();
    }
    to.set_peak_memory_bytes(engine_->peak_memory().value);
    to.set_resident_bytes(resident_bytes());
    link_.report(report);
    told_ = step;
    COX_TRY_VOID(done);
    return save_if_due(numbers);
  }

  /// Mean loss over the held-back batches.
  Result<double> evaluate() {
    const std::int64_t batches = std::max<std::int64_t>(assignment_.settings.data.validation_steps, 1);
    double sum = 0;
    for (std::int64_t index = 0; index < batches; ++index) {
      COX_TRY_VOID(engine_->begin_evaluation(index));
      evaluation_executor_->begin_step();
      COX_TRY_VOID(evaluation_executor_->run_step(world_->signal(), step_deadline()));
      COX_TRY(const double loss, engine_->end_evaluation());
      sum += loss;
    }
    return sum / static_cast<double>(batches);
  }

  AgentLink& link_;
  const Assignment& assignment_;
  std::optional<KeptState>& kept_;
  int generation_;         // that took the last step
  std::int64_t told_ = 0;  // the last step that this rank has told, or began after
  bool is_prepared_ = false;
  std::int64_t num_elements_ = 0;  // of all ranks' parameters
  model::ModelGraph graph_;
  plan::Plan plan_;
  std::vector<plan::ExpertChoice> choices_;
  std::unique_ptr<World> world_;
  std::unique_ptr<Engine> engine_;
  plan::RankProgram program_, evaluation_program_;
  std::optional<ActionWatch> watch_;
  std::optional<executor::Executor> executor_, evaluation_executor_;
  ClockOffset clock_offset_;
  std::int64_t last_traced_ = -1;
  std::optional<CheckpointSaver> saver_;
  bool stops_ = false;  // after this step
};

}  // namespace

Result<void> run_training(AgentLink& link, const Assignment& assignment, const std::string& job_key,
                          std::optional<KeptState>& kept) {
  Trainer trainer(link, assignment, kept);
  COX_TRY_VOID(trainer.prepare(job_key));
  auto ran = trainer.run();
  if (!ran) trainer.keep();
  return ran;
}

Result<void> run_check(AgentLink& link, const Assignment& assignment) {
  COX_TRY(const CheckReport check, check_model(assignment.pt2, assignment.settings.threads));
  control::WorkerReport report;
  control::CheckReport& to = *report.mutable_checked();
  to.set_loss(check.loss);
  to.set_recorded_loss(check.recorded_loss);
  to.set_grad_norm(check.grad_norm);
  to.set_recorded_grad_norm(check.recorded_grad_norm);
  to.set_worst_gradient_error(check.worst_gradient_error);
  to.set_worst_parameter(check.worst_parameter);
  to.set_passed(check.passed);
  link.report(report);
  control::WorkerReport finished;
  finished.mutable_finished();
  link.report(finished);
  return {};
}

}  // namespace coxswain::worker
