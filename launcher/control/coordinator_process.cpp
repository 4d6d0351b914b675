// The coordinator as a process: its server for agents, its files, and the loop that feeds Coordinator. Lines of JSON on
// stdout tell run_train what to print and how the run ended.
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>
#include <variant>

#include "checkpoint/folder.h"
#include "common/log.h"
#include "launcher/control/choose_plan.h"
#include "launcher/control/console.h"
#include "launcher/control/coordinator.h"
#include "launcher/control/event_queue.h"
#include "launcher/control/liveness.h"
#include "launcher/control/run_directory.h"
#include "launcher/control/run_trace.h"
#include "launcher/control/signals.h"
#include "launcher/control/train.h"
#include "launcher/control/work_messages.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"

namespace coxswain::launcher {
namespace {

struct FromAgent {
  int agent = 0;
  std::string body;
};
struct AgentGone {
  int agent = 0;
};
struct PlanReady {
  std::shared_ptr<Result<PlanChoice>> choice;
};
struct SignalCame {
  int number = 0;
};
struct Published {
  std::int64_t step = 0;
  std::optional<Error> error;
};
struct RecoveryFound {
  std::shared_ptr<RecoveryPoint> point;
};
using CoordinatorEvent = std::variant<FromAgent, AgentGone, PlanReady, SignalCame, Published, RecoveryFound>;

/// Open streams of agents by number, with when each was heard.
class AgentStreams {
 public:
  int add(proto::Stream* stream) {
    const std::lock_guard lock(mutex_);
    streams_[next_] = stream;
    return next_++;
  }
  void remove(int agent) {
    const std::lock_guard lock(mutex_);
    streams_.erase(agent);
  }
  void send(int agent, const std::string& body) {
    const std::lock_guard lock(mutex_);
    if (const auto found = streams_.find(agent); found != streams_.end()) found->second->send(body);
  }
  void send_all(const std::string& body) {
    const std::lock_guard lock(mutex_);
    for (auto& [agent, stream] : streams_) stream->send(body);
  }
  void cancel(int agent) {
    const std::lock_guard lock(mutex_);
    if (const auto found = streams_.find(agent); found != streams_.end()) found->second->cancel();
  }
  [[nodiscard]] bool empty() {
    const std::lock_guard lock(mutex_);
    return streams_.empty();
  }

 private:
  std::mutex mutex_;
  int next_ = 0;
  std::map<int, proto::Stream*> streams_;
};

void tell(const Json& object) { std::cout << to_text(object) << "\n" << std::flush; }
void tell_line(const std::string& text) { tell(JsonObject{{"console", text}}); }

class CoordinatorProcess {
 public:
  CoordinatorProcess(CoordinatorStart start, std::optional<Job> job, std::optional<MeasuredBefore> before,
                     CoordinatorSettings settings)
      : start_(std::move(start)),
        job_(std::move(job)),
        before_(std::move(before)),
        core_(std::move(settings)),
        files_(start_.run_dir, clock_) {}

  Result<ExitCode> run() {
    const SignalWatcher signals([this](int number) { events_.push(SignalCame{number}); });
    proto::ServerOptions options{start_.listen, proto::Service::Coordinator, start_.secret, start_.run_id};
    COX_TRY(const auto server, proto::start_server(options, [this](proto::Stream& stream) { serve(stream); }));
    tell(JsonObject{{"listening", server->port()}});
    const Deadline join_by = Deadline::after(clock_, Seconds(start_.join_timeout_seconds));
    Heartbeat heartbeat(kHeartbeatSeconds, clock_.now());
    while (!ended_) {
      if (auto event = events_.pop(Deadline::after(clock_, Seconds(kTickSeconds)).at)) handle(*event);
      const TimePoint now = clock_.now();
      carry_out(core_.tick(now));
      if (heartbeat.due(now)) agents_.send_all(coordinator_heartbeat());
      for (auto& [agent, silence] : silences_) {
        if (silence.too_long(now)) agents_.cancel(agent);  // its stream ends, which is then told as silence
      }
      if (core_.measurements().nodes.empty() && join_by.passed(clock_)) {
        carry_out(core_.plan_failed(Error{ErrorCode::DeadlineExceeded, "not every node came", "--nnodes",
                                          std::to_string(start_.num_nodes) + " nodes",
                                          std::to_string(silences_.size()) + " within " +
                                              std::to_string(static_cast<int>(start_.join_timeout_seconds)) + " s",
                                          "start the same line on each node"},
                                    now));
      }
    }
    // Agents take their last command and hang up; who does not is cut off.
    const Deadline goodbye = Deadline::after(clock_, Seconds(1.0));
    while (!agents_.empty() && !goodbye.passed(clock_)) events_.pop(Deadline::after(clock_, Seconds(0.02)).at);
    events_.close();
    server->stop();
    return exit_code_;
  }

 private:
  void serve(proto::Stream& stream) {
    const int agent = agents_.add(&stream);
    while (auto body = stream.receive()) {
      if (!events_.push(FromAgent{agent, std::move(*body)})) break;
    }
    agents_.remove(agent);
    events_.push(AgentGone{agent});
  }

  void handle(CoordinatorEvent& event) {
    const TimePoint now = clock_.now();
    if (auto* from = std::get_if<FromAgent>(&event)) {
      silences_.insert_or_assign(from->agent, Silence(kSilenceSeconds, now));
      carry_out(core_.agent_report(from->agent, from->body, now));
    } else if (auto* gone = std::get_if<AgentGone>(&event)) {
      const auto silence = silences_.find(gone->agent);
      const bool silent = silence != silences_.end() && silence->second.too_long(now);
      if (silence != silences_.end()) silences_.erase(silence);
      carry_out(core_.agent_gone(gone->agent, silent ? "its agent fell silent" : "its agent died", now));
    } else if (auto* ready = std::get_if<PlanReady>(&event)) {
      planner_.join();
      take_choice(*ready->choice, now);
    } else if (auto* published = std::get_if<Published>(&event)) {
      publisher_.join();
      to_publish_.pop_front();
      publish_next();
      carry_out(core_.checkpoint_published(published->step, std::move(published->error), now));
    } else if (auto* found = std::get_if<RecoveryFound>(&event)) {
      finder_.join();
      carry_out(core_.recovery_found(*found->point, now));
    } else if (auto* signal = std::get_if<SignalCame>(&event)) {
      carry_out(core_.stop_requested(signal->number, now));
    }
  }

  void carry_out(std::vector<Decision> decisions) {
    for (Decision& decision : decisions) {
      if (auto* send = std::get_if<SendCommand>(&decision)) {
        agents_.send(send->agent, send->body);
      } else if (std::holds_alternative<ChoosePlan>(decision)) {
        begin_choosing();
      } else if (auto* event = std::get_if<RecordEvent>(&decision)) {
        record(std::move(event->event));
      } else if (auto* step = std::get_if<RecordStep>(&decision)) {
        if (trace_) trace_step(step->row);
        record_step(step->row);
      } else if (auto* complete = std::get_if<PublishCheckpoint>(&decision)) {
        to_publish_.push_back(std::move(*complete));
        if (to_publish_.size() == 1) publish_next();
      } else if (std::holds_alternative<FindCheckpoint>(decision)) {
        find_recovery();
      } else if (auto* ended = std::get_if<RunEnded>(&decision)) {
        end(*ended);
      }
    }
  }

  /// A disk may take seconds; one after the other, since ranks write them in that order.
  void publish_next() {
    if (to_publish_.empty()) return;
    checkpoint::Manifest manifest{to_publish_.front().progress, job_->seed, model_hash_, plan_hash_,
                                  std::move(to_publish_.front().shards)};
    publisher_ = std::jthread([this, manifest = std::move(manifest)] {
      const std::int64_t step = manifest.progress.step;
      auto published = guard("launcher", [&]() -> Result<void> {
        COX_TRY_VOID(checkpoint::publish(start_.checkpoint_directory, manifest));
        return checkpoint::prune(start_.checkpoint_directory, job_->checkpoint.keep, step);
      });
      events_.push(Published{step, published ? std::nullopt : std::optional<Error>(published.error())});
    });
  }

  /// Every byte is read, which may take seconds.
  void find_recovery() {
    finder_ = std::jthread([this] {
      auto point = std::make_shared<RecoveryPoint>();
      checkpoint::Search search = checkpoint::find_newest(start_.checkpoint_directory);
      point->rejected = std::move(search.rejected);
      if (search.newest) {
        point->folder = search.newest->folder.string();
        point->step = search.newest->manifest.progress.step;
      } else {
        point->folder = start_.resume_from.string();
        point->step = start_.resume_step;
      }
      events_.push(RecoveryFound{std::move(point)});
    });
  }

  /// Searching may take seconds; heartbeats go on meanwhile.
  void begin_choosing() {
    planner_ = std::jthread([this] {
      auto choice = std::make_shared<Result<PlanChoice>>(guard("launcher", [this]() -> Result<PlanChoice> {
        if (start_.mode == RunMode::Check) return PlanChoice{};
        if (start_.mode == RunMode::Train)
          return choose_plan(start_, *job_, core_.measurements(), core_.backend(), before_);
        PlanChoice probe;
        COX_TRY(probe.cluster, build_cluster(core_.measurements()));
        return probe;
      }));
      events_.push(PlanReady{std::move(choice)});
    });
  }

  void take_choice(Result<PlanChoice>& choice, TimePoint now) {
    if (!choice) return carry_out(core_.plan_failed(choice.error(), now));
    if (start_.mode == RunMode::Train) {
      if (auto written = write_inputs(*choice); !written) return carry_out(core_.plan_failed(written.error(), now));
      announce(*choice);
      if (choice->trace) trace_.emplace(start_.trace_steps, std::move(*choice->trace));
    } else if (start_.mode == RunMode::Probe) {
      result_["resources"] = cluster::to_json(choice->cluster.resources);
      if (!choice->cluster.profile.blocks.empty()) result_["profile"] = cluster::to_json(choice->cluster.profile);
    } else {
      add_check();
    }
    carry_out(core_.plan_chosen(choice->chosen, now));
  }

  Result<void> write_inputs(const PlanChoice& choice) {
    COX_TRY_VOID(files_.write("job.yaml", start_.job_text));
    COX_TRY_VOID(files_.write("cluster.json", to_text(cluster::to_json(choice.cluster.resources), 2) + "\n"));
    if (!choice.cluster.profile.blocks.empty())
      COX_TRY_VOID(files_.write("profile.json", to_text(cluster::to_json(choice.cluster.profile), 2) + "\n"));
    plan_text_ = to_text(choice.plan_file, 2) + "\n";
    COX_TRY_VOID(files_.write("plan-1.json", plan_text_));
    // What happened before there was a plan was kept back, so that a run that never started leaves nothing.
    writing_ = true;
    for (Json& event : held_back_) COX_TRY_VOID(files_.append_event(std::move(event)));
    held_back_.clear();
    return {};
  }

  void announce(const PlanChoice& choice) {
    const int ranks = plan::num_ranks(choice.plan);
    model_hash_ = choice.plan.model_hash;
    plan_hash_ = plan::plan_hash(choice.plan);
    prediction_ = make_prediction(choice.estimate, ranks,
                                  job_->global_batch * std::max<std::int64_t>(job_->data.sequence_length, 1));
    record(JsonObject{{"type", "cluster_probed"},
                      {"devices", cluster::num_devices(choice.cluster.resources)},
                      {"nodes", cluster::num_nodes(choice.cluster.resources)}});
    record(JsonObject{{"type", "plan_chosen"},
                      {"generation", 1},
                      {"summary", choice.summary},
                      {"plan_hash", plan_hash_},
                      {"predicted_step_seconds", choice.estimate.step.value},
                      {"search_seconds", choice.search_seconds}});
    tell_line("cluster: " + describe_cluster(choice.cluster.resources));
    char text[64];
    std::snprintf(text, sizeof text, "%.1f ms", choice.estimate.step.value * 1e3);
    std::int64_t memory = 0;
    for (std::int64_t bytes : prediction_.peak_memory_bytes) memory = std::max(memory, bytes);
    tell_line("plan: " + choice.summary + " on " + std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks") + " (" +
              choice.plan.backend + "); predicted step " + text + ", memory " + memory_text(memory) + " a rank");
    for (const std::string& rejected : start_.rejected)
      record(JsonObject{{"type", "checkpoint_rejected"}, {"cause", rejected}});
    if (!start_.resume_from.empty()) {
      record(JsonObject{
          {"type", "checkpoint_loaded"}, {"step", start_.resume_step}, {"folder", start_.resume_from.string()}});
      tell_line("resume: after step " + std::to_string(start_.resume_step) + ", from " + start_.resume_from.string());
    }
    tell_line(console_header());
  }

  void add_check() {
    control::CheckReport report;
    if (core_.measurements().reports.empty() || !report.ParseFromString(core_.measurements().reports.front())) return;
    result_["check"] = JsonObject{{"loss", report.loss()},
                                  {"recorded_loss", report.recorded_loss()},
                                  {"grad_norm", report.grad_norm()},
                                  {"recorded_grad_norm", report.recorded_grad_norm()},
                                  {"worst_gradient_error", report.worst_gradient_error()},
                                  {"worst_parameter", report.worst_parameter()},
                                  {"passed", report.passed()}};
  }

  void record(Json event) {
    if (event["type"] == Json("step_skipped")) tell_skip(event);
    if (event["type"] == Json("generation_started") && event.object().contains("restarts")) tell_restart(event);
    if (event["type"] == Json("checkpoint_failed"))
      log(LogLevel::Warn, "train",
          "step " + to_text(event["step"]) + " is not saved: " + event["cause"].string() + " (" +
              event["where"].string() + ")");
    if (start_.run_dir.empty()) return;
    if (!writing_) {
      event["time"] = clock_.utc_text();
      held_back_.push_back(std::move(event));
      return;
    }
    if (auto written = files_.append_event(std::move(event)); !written) disk_failed(written.error());
  }

  void tell_restart(const Json& event) {
    log(LogLevel::Warn, "train",
        "rank " + to_text(event["failed_rank"]) + " on node " + to_text(event["failed_node"]) +
            " failed: " + event["cause"].string() + "; generation " + to_text(event["generation"]) +
            " goes on after step " + to_text(event["after_step"]));
    const std::string file = "plan-" + to_text(event["generation"]) + ".json";
    if (auto written = files_.write(file, plan_text_); !written) disk_failed(written.error());
  }

  /// Of float16 it is the usual way to a scale that fits; else something is wrong.
  static void tell_skip(const Json& event) {
    const bool scale_falls = event["loss_scale"].is_number() && event["cause"] == Json("the gradients are not finite");
    log(scale_falls ? LogLevel::Info : LogLevel::Warn, "train", skip_line(event));
  }

  void record_step(const StepRow& row) {
    if (auto written = files_.append("metrics.jsonl", metrics_object(row, prediction_)); !written)
      disk_failed(written.error());
    times_.add(row);
    last_ = row;
    if (row.validation_loss) validation_loss_ = row.validation_loss;
    const bool listed =
        row.step == 1 || row.step % std::max<std::int64_t>(job_->log_every, 1) == 0 || row.step == job_->steps;
    if (listed || row.validation_loss) tell_line(console_line(row, prediction_));
  }

  void trace_step(StepRow& row) {
    if (auto added = trace_->add(row); !added) log(LogLevel::Warn, "trace", to_text(added.error()));
    if (trace_->complete()) write_trace();
  }

  /// The steps that are there: of a run that ended before its last traced step, those before.
  void write_trace() {
    const auto text = trace_->text();
    const std::string file = trace_file(trace_->steps());
    trace_.reset();
    if (!text) return;
    if (auto written = files_.write(file, *text); !written) return disk_failed(written.error());
    result_["trace"] = file;
  }

  void disk_failed(const Error& error) {
    if (disk_error_) return;
    disk_error_ = error;
    carry_out(core_.plan_failed(error, clock_.now()));
  }

  void end(const RunEnded& ended) {
    ended_ = true;
    if (trace_) write_trace();
    exit_code_ = ended.exit_code;
    result_["exit_code"] = static_cast<int>(ended.exit_code);
    result_["signal"] = ended.signal;
    if (ended.error) result_["error"] = proto::to_json(*ended.error);
    result_["steps"] = last_.step;
    result_["median_step_seconds"] = times_.median_seconds();
    result_["predicted_step_seconds"] = prediction_.step_seconds;
    result_["started"] = writing_;
    if (last_.step > 0) result_["loss"] = last_.loss == last_.loss ? Json(last_.loss) : Json(nullptr);
    if (validation_loss_ && *validation_loss_ == *validation_loss_) result_["validation_loss"] = *validation_loss_;
    JsonArray measured, predicted, resident;
    for (std::int64_t bytes : last_.peak_memory_bytes) measured.push_back(bytes);
    for (std::int64_t bytes : last_.resident_bytes) resident.push_back(bytes);
    for (std::int64_t bytes : prediction_.peak_memory_bytes) predicted.push_back(bytes);
    result_["peak_memory_bytes"] = std::move(measured);
    result_["resident_bytes"] = std::move(resident);
    result_["predicted_peak_memory_bytes"] = std::move(predicted);
    tell(JsonObject{{"outcome", result_}});
  }

  CoordinatorStart start_;
  std::optional<Job> job_;
  std::optional<MeasuredBefore> before_;
  const Clock& clock_ = steady_clock();
  Coordinator core_;
  RunDirectory files_;
  EventQueue<CoordinatorEvent> events_;
  AgentStreams agents_;
  std::map<int, Silence> silences_;
  std::jthread planner_, publisher_, finder_;
  std::deque<PublishCheckpoint> to_publish_;  // the first one is under way
  std::string model_hash_, plan_hash_, plan_text_;
  Prediction prediction_;
  StepTimes times_;
  std::optional<RunTrace> trace_;
  StepRow last_;
  std::optional<double> validation_loss_;
  std::optional<Error> disk_error_;
  std::vector<Json> held_back_;
  bool writing_ = false, ended_ = false;
  ExitCode exit_code_ = ExitCode::Done;
  JsonObject result_;
};

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
  settings.run_id = start.run_id;
  settings.shutdown_timeout_seconds = start.shutdown_timeout_seconds;
  std::optional<MeasuredBefore> before;
  if (start.mode == RunMode::Train) {
    before = find_measured_before(start.plan_file.empty() ? job->plan_file : start.plan_file);
    settings.train_work = make_train_work(*job, start.trace_steps, start.checkpoint_directory, start.resume_from);
    settings.saves = !start.checkpoint_directory.empty();
    settings.save_every = job->checkpoint.every_steps;
    settings.first_step = start.resume_step;
    settings.max_restarts = start.max_restarts;
    settings.resume_hint = "go on with --resume " + start.checkpoint_directory.string();
  }
  settings.measures = !before;
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
