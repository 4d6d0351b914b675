// The coordinator as a process: its server for agents, the journal, and the loop that feeds Coordinator with inputs
// that are on the disk. Killed at any instant and started again, it makes itself anew out of the journal, and agents
// come back. Lines of JSON on stdout tell run_train what to print and how the run ended.
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <variant>

#include "common/log.h"
#include "launcher/control/agent_lines.h"
#include "launcher/control/coordinator.h"
#include "launcher/control/coordinator_input.h"
#include "launcher/control/coordinator_work.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/input_files.h"
#include "launcher/control/journal.h"
#include "launcher/control/liveness.h"
#include "launcher/control/run_output.h"
#include "launcher/control/signals.h"
#include "launcher/control/train.h"
#include "launcher/control/work_messages.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

// Written to the journal together.
constexpr int kMostEvents = 256;
// Then those of finished steps give way to one that stands for them.
constexpr int kMostStepReports = 4096, kMostStepsPerRank = 4;  // the larger
// Agents take their last command and hang up; who does not is cut off.
constexpr double kGoodbyeSeconds = 1.0;
// A plan after a loss is for at least so long, however few steps are left.
constexpr double kLeastHorizonSeconds = 60;

struct FromLine {
  int line = 0;
  std::string envelope;
};
struct LineEnded {
  int line = 0;
};
struct SignalCame {
  int number = 0;
};
using CoordinatorEvent = std::variant<FromLine, LineEnded, WorkDone, SignalCame>;

/// An input that is none of an agent's.
Input told(InputKind kind, TimePoint at, std::string body = "") {
  Input input;
  input.kind = kind;
  input.at = at;
  input.body = std::move(body);
  return input;
}

PlanRecord record_of(const PlanChoice& choice, const Job& job, const Corrections& known) {
  PlanRecord record;
  record.known = known;
  record.chosen = choice.chosen;
  record.plan_text = to_text(choice.plan_file, 2) + "\n";
  record.model_hash = choice.plan.model_hash;
  record.plan_hash = record.chosen.plan_hash = plan::plan_hash(choice.plan);
  record.summary = choice.summary;
  record.backend = choice.plan.backend;
  record.cluster = describe_cluster(choice.cluster.resources);
  record.num_devices = cluster::num_devices(choice.cluster.resources);
  record.num_nodes = cluster::num_nodes(choice.cluster.resources);
  record.search_seconds = choice.search_seconds;
  record.prediction = make_prediction(choice.estimate, plan::num_ranks(choice.plan),
                                      job.global_batch * std::max<std::int64_t>(job.data.sequence_length, 1));
  return record;
}

Json check_result(const Measurements& measurements) {
  control::CheckReport report;
  if (measurements.reports.empty() || !report.ParseFromString(measurements.reports.front())) return nullptr;
  return JsonObject{{"loss", report.loss()},
                    {"recorded_loss", report.recorded_loss()},
                    {"grad_norm", report.grad_norm()},
                    {"recorded_grad_norm", report.recorded_grad_norm()},
                    {"worst_gradient_error", report.worst_gradient_error()},
                    {"worst_parameter", report.worst_parameter()},
                    {"passed", report.passed()}};
}

class CoordinatorProcess {
 public:
  CoordinatorProcess(CoordinatorStart start, std::optional<Job> job, std::optional<MeasuredBefore> before,
                     CoordinatorSettings settings)
      : start_(std::move(start)),
        job_(std::move(job)),
        before_(std::move(before)),
        core_(std::move(settings)),
        output_(start_, job_ ? &*job_ : nullptr, clock_),
        input_files_(job_ ? input_paths(*job_, start_.mode == RunMode::Train) : std::vector<std::filesystem::path>()),
        lines_(std::max(start_.num_nodes, start_.max_nodes) == 1 ? limits::kAloneSilence : limits::kSilence) {}

  Result<ExitCode> run() {
    const SignalWatcher signals([this](int number) { events_.push(SignalCame{number}); });
    COX_TRY_VOID(restore());
    proto::ServerOptions options{start_.listen, proto::Service::Coordinator, start_.secret, start_.run_id};
    const auto started = proto::start_server(
        options, [this](proto::Stream& stream) { serve(stream); },
        [this](proto::Stream& stream) { proto::serve_inputs(stream, [this] { return input_files_.list(); }); });
    if (!started) {
      if (journal_ && !restored_) journal_->remove();  // nothing began
      return started.error();
    }
    const auto& server = *started;
    tell(JsonObject{{"listening", server->port()}, {"stop_requests", stop_requests_}});
    const Deadline join_by = Deadline::after(clock_, Seconds(start_.join_timeout_seconds));
    while (!ended_) {
      take_events();
      const TimePoint now = clock_.now();
      if (heartbeat_.due(now)) lines_.beat(now);
      for (Input& gone : lines_.not_back(now)) inputs_.push_back(std::move(gone));
      if (core_.measurements().nodes.empty() && join_by.passed(clock_)) fail(not_all_came());
      if (core_.due(now)) inputs_.push_back(told(InputKind::Tick, now));
    }
    say_goodbye();
    events_.close();
    server->stop();
    if (journal_) journal_->remove();
    return exit_code_;
  }

 private:
  void serve(proto::Stream& stream) {
    const int line = lines_.open(stream);
    while (auto envelope = stream.receive()) {
      if (!events_.push(FromLine{line, std::move(*envelope)})) break;
    }
    lines_.close(line);
    events_.push(LineEnded{line});
  }

  /// Once more through all that was told before this process began, without doing any of it again.
  Result<void> restore() {
    if (start_.run_dir.empty()) return {};
    auto journal = Journal::open(start_.run_dir / "coordinator.db", start_.run_id);
    if (!journal) return cannot_restore(journal.error());
    journal_.emplace(std::move(*journal));
    const auto read = journal_->inputs();
    if (!read) return cannot_restore(read.error());
    const std::vector<Input>& before = *read;
    if (before.empty()) return {};
    COX_TRY_VOID(output_.find_told(output_then(before)));
    for (const Input& input : before) apply(input);
    restored_ = true;
    const TimePoint now = clock_.now();
    lines_.expect_back(Deadline::after(clock_, Seconds(limits::kAgentsBack)).at);
    inputs_.push_back(told(InputKind::Restarted, now));
    return {};
  }

  /// Of the newest marker; null where there is none.
  static Json output_then(const std::vector<Input>& inputs) {
    const auto marker = std::find_if(inputs.rbegin(), inputs.rend(),
                                     [](const Input& input) { return input.kind == InputKind::StepsTaken; });
    return marker == inputs.rend() ? Json() : parse_json(marker->body).value_or(Json())["output"];
  }

  /// A disk that refuses a new journal is told as such.
  static Error cannot_restore(const Error& why) {
    if (why.code != ErrorCode::DataLoss) return why;
    return {ErrorCode::Unavailable, "the coordinator died and cannot be made anew", why.path, "", "", why.hint, {why}};
  }

  /// When there is something to do, if nothing happens before. In a run that goes well only checkpoints are due now and
  /// then: they can wait for a heartbeat.
  [[nodiscard]] TimePoint next_look() const {
    const TimePoint now = clock_.now();
    if (!inputs_.empty()) return now;
    const TimePoint next = std::min(heartbeat_.next(), lines_.next_look());
    return core_.undisturbed() ? next : std::min(next, after(now, limits::kTick));
  }

  /// Waits for what happens, writes it down, acts on it.
  void take_events() {
    auto event = events_.pop(next_look());
    for (int count = 1; event; ++count) {
      for (Input& input : inputs_of(*event)) inputs_.push_back(std::move(input));
      event = count < kMostEvents ? events_.pop(clock_.now()) : std::nullopt;
    }
    std::vector<Input> inputs = std::exchange(inputs_, {});
    if (inputs.empty()) return;
    if (journal_) {
      if (auto written = journal_->add(inputs); !written) {
        journal_.reset();
        inputs.push_back(told(InputKind::RunFailed, clock_.now(), proto::error_to_text(written.error())));
      }
    }
    if (!working_) begin_work();
    for (const Input& input : inputs) {
      apply(input);
      if (input.step > 0) ++step_reports_;
    }
    const int most = std::max(kMostStepReports, kMostStepsPerRank * core_.num_ranks());
    if (step_reports_ >= most && core_.undisturbed()) drop_steps();
    if (auto error = output_.take_disk_error(); error && !disk_failed_) {
      disk_failed_ = true;
      fail(*error);
    }
  }

  /// A long run's steps would fill the disk, and the time of a restart.
  void drop_steps() {
    step_reports_ = 0;
    if (!journal_) return;
    const StepsTaken taken{core_.last_step(), output_.state(), lines_.taken()};
    const Input marker = told(InputKind::StepsTaken, clock_.now(), to_text(to_json(taken)));
    if (auto written = journal_->replace_steps(taken.step, marker); !written) fail(written.error());
  }

  std::vector<Input> inputs_of(CoordinatorEvent& event) {
    const TimePoint now = clock_.now();
    if (auto* from = std::get_if<FromLine>(&event)) return lines_.receive(from->line, from->envelope, now);
    if (auto* line = std::get_if<LineEnded>(&event)) {
      lines_.ended(line->line, now);
      return {};
    }
    if (auto* done = std::get_if<WorkDone>(&event)) return inputs_of(*done, now);
    return {told(InputKind::StopRequested, now, std::to_string(std::get<SignalCame>(event).number))};
  }

  std::vector<Input> inputs_of(WorkDone& done, TimePoint now) {
    if (auto* ready = std::get_if<PlanReady>(&done)) {
      if (ready->search != searches_) return {};  // another one was asked for meanwhile
      return {plan_input(*ready->choice, now)};
    }
    if (auto* look = std::get_if<LookReady>(&done)) return look_input(look->generation, *look->made, now);
    if (auto* published = std::get_if<Publication>(&done))
      return {told(InputKind::Published, now, to_text(to_json(*published)))};
    return {told(InputKind::RecoveryFound, now, to_text(to_json(std::get<RecoveryPoint>(done))))};
  }

  /// The files are written first: what the journal says of a plan is then there.
  Input plan_input(Result<PlanChoice>& choice, TimePoint now) {
    PlanRecord record;
    if (choice && start_.mode == RunMode::Train) {
      const auto written =
          running_ ? output_.write_changed(*choice, core_.generation() + 1) : output_.write_inputs(*choice);
      if (!written) return told(InputKind::RunFailed, now, proto::error_to_text(written.error()));
      record = record_of(*choice, *job_, known_at_search_);
      if (choice->trace) output_.begin_trace(std::move(*choice->trace));
    } else if (choice && start_.mode == RunMode::Probe) {
      output_.add_result("resources", cluster::to_json(choice->cluster.resources));
      if (!choice->cluster.profile.blocks.empty())
        output_.add_result("profile", cluster::to_json(choice->cluster.profile));
    } else if (choice) {
      if (Json check = check_result(core_.measurements()); check.is_object())
        output_.add_result("check", std::move(check));
    }
    if (!choice) return told(InputKind::PlanFailed, now, proto::error_to_text(choice.error()));
    return told(InputKind::PlanChosen, now, to_text(to_json(record)));
  }

  /// Nothing where nothing is off.
  std::vector<Input> look_input(int generation, Result<Recalibration>& made, TimePoint now) {
    if (look_ && look_->generation == generation) look_.reset();
    if (!made) {
      log(LogLevel::Warn, "train", "steps are not compared with what was predicted: " + to_text(made.error()));
      return {};
    }
    if (generation != core_.generation()) return {};  // what newer steps show counts
    if (made->differences.findings.empty() && !made->choice) return {};
    CalibrationRecord record{generation, {}, std::move(made->differences.corrections), std::nullopt};
    for (const Finding& finding : made->differences.findings) record.findings.push_back(to_json(finding));
    if (made->choice && core_.may_move()) {
      if (auto written = output_.write_changed(*made->choice, generation + 1); !written)
        return {told(InputKind::RunFailed, now, proto::error_to_text(written.error()))};
      record.plan = record_of(*made->choice, *job_, record.known);
    }
    return {told(InputKind::Calibrated, now, to_text(to_json(record)))};
  }

  void fail(const Error& error) {
    inputs_.push_back(told(InputKind::RunFailed, clock_.now(), proto::error_to_text(error)));
  }

  Error not_all_came() const {
    return {ErrorCode::DeadlineExceeded,
            "not every node came",
            "--nnodes",
            std::to_string(start_.num_nodes) + " nodes",
            std::to_string(lines_.num_agents()) + " within " +
                std::to_string(static_cast<int>(start_.join_timeout_seconds)) + " s",
            "start the same line on each node"};
  }

  /// The only way in which anything changes: live, and again from the journal.
  void apply(const Input& input) {
    lines_.took(input);
    output_.set_time(input.at);
    const auto json = [&input] { return parse_json(input.body).value_or(Json()); };
    switch (input.kind) {
      case InputKind::AgentReport: return carry_out(core_.agent_report(input.agent, input.body, input.at));
      case InputKind::AgentGone: return carry_out(core_.agent_gone(input.agent, input.body, input.at));
      case InputKind::PlanChosen: return apply_plan(plan_record_from_json(json()), input.at);
      case InputKind::PlanFailed:
        choosing_ = false;
        return carry_out(core_.plan_failed(proto::error_from_text(input.body), input.at));
      case InputKind::RunFailed:
        choosing_ = false;
        return carry_out(core_.run_failed(proto::error_from_text(input.body), input.at));
      case InputKind::Published: {
        if (!to_publish_.empty()) to_publish_.pop_front();
        if (working_) publish_next();
        if (auto published = publication_from_json(json()))
          carry_out(core_.checkpoint_published(published->step, std::move(published->error), input.at));
        return;
      }
      case InputKind::RecoveryFound:
        finding_.reset();
        if (const auto point = recovery_point_from_json(json())) carry_out(core_.recovery_found(*point, input.at));
        return;
      case InputKind::StopRequested:
        ++stop_requests_;
        return carry_out(core_.stop_requested(std::atoi(input.body.c_str()), input.at));
      case InputKind::Tick: return carry_out(core_.tick(input.at));
      case InputKind::StepsTaken:
        if (const auto taken = steps_taken_from_json(json())) {
          lines_.took(*taken);
          carry_out(core_.steps_taken(taken->step, input.at));
          output_.go_on_from(taken->output);
        }
        return;
      case InputKind::Restarted: return carry_out(core_.restarted(input.at));
      case InputKind::Calibrated: return apply_calibration(calibration_record_from_json(json()), input.at);
    }
  }

  void apply_calibration(const Result<CalibrationRecord>& record, TimePoint at) {
    if (!record) return;  // of this version's own journal
    if (look_ && look_->generation == record->generation) look_.reset();
    known_ = record->known;
    std::optional<ChosenPlan> plan;
    if (record->plan) plan = record->plan->chosen;
    carry_out(core_.calibrated(record->generation, record->findings, plan, at));
    if (plan && core_.awaits(*plan)) next_ = record->plan;
  }

  /// Gathers the steps of a look; with the last one they are compared with what was predicted.
  void look_at(const StepRow& row) {
    if (row.traces.empty() || !running_) return;
    for (const TraceSteps& look : core_.looks()) {
      if (row.step < look.first || row.step > look.last) continue;
      if (row.step == look.first) looked_.clear();
      looked_.push_back(row);
      if (row.step < look.last || static_cast<std::int64_t>(looked_.size()) < look.count()) return;
      look_.emplace();
      look_->generation = row.generation;
      look_->rows = std::exchange(looked_, {});
      look_->ranks = running_->chosen.ranks;
      if (working_) begin_look();
    }
  }

  /// May search; heartbeats go on meanwhile.
  void begin_look() {
    look_->running = running_state();
    look_->steps_left = std::max<std::int64_t>(job_->steps - core_.last_step(), 0);
    look_->may_move = core_.may_move();
    work_.look(*look_, core_.measurements());
  }

  [[nodiscard]] LostNodes running_state() const {
    LostNodes state;
    state.running_plan = running_->chosen.plan_json;
    state.then = core_.planned_without();
    state.now = core_.lost_nodes();
    state.known_then = running_->known;
    state.known_now = known_;
    return state;
  }

  void apply_plan(const Result<PlanRecord>& record, TimePoint at) {
    choosing_ = false;
    if (!record) return carry_out(core_.plan_failed(record.error(), at));
    const bool trains = start_.mode == RunMode::Train;
    if (core_.takes_plan_now()) {
      if (trains) next_ = *record;
      adopt_plan();
    }
    carry_out(core_.plan_chosen(record->chosen, at));
    if (core_.awaits(record->chosen)) next_ = *record;
  }

  /// What was chosen last becomes the run's plan, before the events of what follows from it.
  void adopt_plan() {
    ++plans_adopted_;
    if (!next_) return;
    if (running_)
      output_.go_on(*next_, core_.generation() + 1);
    else
      output_.begin(*next_);
    running_ = std::exchange(next_, std::nullopt);
  }

  void carry_out(std::vector<Decision> decisions) {
    for (Decision& decision : decisions) {
      if (auto* send = std::get_if<SendCommand>(&decision)) {
        lines_.send({send->agent}, std::move(send->body));
      } else if (auto* to_all = std::get_if<SendToAll>(&decision)) {
        lines_.send(to_all->agents, std::move(to_all->body));
      } else if (std::holds_alternative<ChoosePlan>(decision)) {
        choosing_ = true;
        ++searches_;
        if (working_) begin_choosing();
      } else if (auto* event = std::get_if<RecordEvent>(&decision)) {
        output_.record(std::move(event->event));
      } else if (auto* step = std::get_if<RecordStep>(&decision)) {
        look_at(step->row);
        output_.record_step(std::move(step->row));
      } else if (auto* complete = std::get_if<PublishCheckpoint>(&decision); complete && !complete->agents.empty()) {
        store_parts(*complete);
      } else if (complete != nullptr) {
        to_publish_.push_back(std::move(*complete));
        if (working_ && to_publish_.size() == 1) publish_next();
      } else if (auto* find = std::get_if<FindCheckpoint>(&decision)) {
        finding_ = std::move(*find);
        if (working_) begin_finding();
      } else if (auto* ended = std::get_if<RunEnded>(&decision)) {
        ended_ = true;
        exit_code_ = ended->exit_code;
        output_.end(*ended);
      }
    }
    if (core_.plans_taken() > plans_adopted_) adopt_plan();  // the generation before it has ended
  }

  /// What is known needs no look; it goes through the journal as what was found does.
  void begin_finding() {
    if (!finding_->known) return work_.find_recovery();
    inputs_.push_back(told(InputKind::RecoveryFound, clock_.now(), to_text(to_json(*finding_->known))));
  }

  /// What a coordinator before this one began and did not end.
  void begin_work() {
    working_ = true;
    if (choosing_) begin_choosing();
    if (look_ && look_->generation == core_.generation()) begin_look();
    if (finding_) begin_finding();
    publish_next();
  }

  [[nodiscard]] checkpoint::Manifest manifest_of(const PublishCheckpoint& complete) const {
    return {complete.progress, job_->seed, running_->model_hash, complete.plan_hash, complete.shards};
  }

  /// Of nodes that share no disk, each keeps its own.
  void store_parts(const PublishCheckpoint& complete) {
    control::AgentCommand command;
    command.mutable_store()->set_directory(start_.checkpoint_directory.string());
    command.mutable_store()->set_manifest(to_text(manifest_of(complete)));
    lines_.send(complete.agents, command.SerializeAsString());
  }

  /// A disk may take seconds; one after the other, since ranks write them in that order.
  void publish_next() {
    if (!to_publish_.empty()) work_.publish(manifest_of(to_publish_.front()));
  }

  /// Searching may take seconds; heartbeats go on meanwhile.
  void begin_choosing() {
    known_at_search_ = known_;
    std::optional<LostNodes> lost;
    if (running_) {
      lost = running_state();
      const auto left = static_cast<double>(std::max<std::int64_t>(job_->steps - core_.last_step(), 1));
      lost->horizon = Seconds(std::max(kLeastHorizonSeconds, left * running_->prediction.step_seconds));
    }
    // Copies: a node that comes back meanwhile changes what is known of it.
    work_.choose(searches_, core_.measurements(), core_.backend(), std::move(lost));
  }

  void say_goodbye() {
    const Deadline by = Deadline::after(clock_, Seconds(restored_ ? limits::kAgentsBack : kGoodbyeSeconds));
    while (!lines_.all_hung_up() && !by.passed(clock_)) {
      auto event = events_.pop(Deadline::after(clock_, Seconds(0.02)).at);
      if (!event) continue;
      if (const auto* from = std::get_if<FromLine>(&*event))
        lines_.receive(from->line, from->envelope, clock_.now());  // one that comes back takes its last command
      if (const auto* line = std::get_if<LineEnded>(&*event)) lines_.ended(line->line, clock_.now());
    }
  }

  CoordinatorStart start_;
  std::optional<Job> job_;
  std::optional<MeasuredBefore> before_;
  const Clock& clock_ = steady_clock();
  Coordinator core_;
  RunOutput output_;
  std::optional<Journal> journal_;
  EventQueue<CoordinatorEvent> events_;
  std::vector<Input> inputs_;  // not yet in the journal
  InputFiles input_files_;     // for agents of other nodes
  AgentLines lines_;
  Heartbeat heartbeat_{limits::kHeartbeat, clock_.now()};
  // Under way in a thread of their own, and to be begun again after a restart.
  bool choosing_ = false;
  std::optional<FindCheckpoint> finding_;
  std::optional<LookRequest> look_;           // not answered
  int searches_ = 0;                          // asked for so far
  std::deque<PublishCheckpoint> to_publish_;  // the first one is under way
  bool working_ = false;                      // false: making itself anew, nothing is begun
  bool restored_ = false, ended_ = false, disk_failed_ = false;
  int stop_requests_ = 0, step_reports_ = 0;
  std::optional<PlanRecord> running_, next_;  // the run's plan; one that was chosen and is not the run's yet
  int plans_adopted_ = 0;
  std::vector<StepRow> looked_;          // of the look that is under way
  Corrections known_, known_at_search_;  // of devices and links: by now, and when the newest search began
  ExitCode exit_code_ = ExitCode::Done;
  // Last: it ends before what it uses.
  CoordinatorWork work_{start_, job_, before_, [this](WorkDone done) { events_.push(std::move(done)); }};
};

/// Beside the plan that is given, else beside the cluster file.
std::optional<MeasuredBefore> find_before(const CoordinatorStart& start, const Job& job) {
  const std::filesystem::path plan_file = start.plan_file.empty() ? job.plan_file : start.plan_file;
  if (!plan_file.empty()) return find_measured_before(plan_file);
  const std::filesystem::path cluster_file = start.cluster_file.empty() ? job.cluster_file : start.cluster_file;
  return find_measured_with(cluster_file, start.model_hash, std::string(plan::to_text(job.precision)));
}

Result<ExitCode> run_coordinator() {
  ::umask(0077);
  COX_TRY(const Json json, read_request_from_stdin());
  COX_TRY(CoordinatorStart start, coordinator_start_from_json(json));
  std::optional<Job> job;
  if (!start.job_text.empty()) {
    COX_TRY(job, parse_job(start.job_text, start.job_file));
  }
  CoordinatorSettings settings;
  settings.mode = start.mode;
  settings.num_nodes = start.num_nodes;
  settings.max_nodes = start.max_nodes;
  settings.run_id = start.run_id;
  settings.shutdown_timeout_seconds = start.shutdown_timeout_seconds;
  std::optional<MeasuredBefore> before;
  if (start.mode == RunMode::Train) {
    before = find_before(start, *job);
    settings.train_work = make_train_work(*job, start.trace_steps, start.checkpoint_directory, start.resume_from);
    settings.saves = !start.checkpoint_directory.empty();
    settings.save_every = job->checkpoint.every_steps;
    settings.keep = job->checkpoint.keep;
    settings.first_step = start.resume_step;
    settings.asks_nodes = start.resume_asks_nodes;
    settings.model_hash = start.model_hash;
    settings.max_restarts = start.max_restarts;
    settings.min_nodes = start.min_nodes;
    settings.resume_hint = "go on with --resume " + start.checkpoint_directory.string();
  }
  settings.measures = !before;
  settings.takes_newcomers = !before && start.cluster_file.empty() && (!job || job->cluster_file.empty());
  settings.measure_work = start.mode == RunMode::Check ? make_check_work(start.pt2) : make_measure_work(job);
  if (job) settings.environment = job->environment;
  settings.backend = start.mode == RunMode::Check ? "host" : start.backend;
  settings.master_addr = start.listen.substr(0, start.listen.rfind(':'));
  CoordinatorProcess process(std::move(start), std::move(job), std::move(before), std::move(settings));
  return process.run();
}

}  // namespace

ExitCode run_coordinator_process() {
  const auto result = guard("launcher", [] { return run_coordinator(); });
  if (result) return *result;
  tell(JsonObject{{"outcome", JsonObject{{"exit_code", static_cast<int>(exit_code_for(result.error().code))},
                                         {"error", proto::to_json(result.error())}}}});
  return exit_code_for(result.error().code);
}

}  // namespace coxswain::launcher
