#include "launcher/control/coordinator_state.h"

#include <algorithm>

#include "checkpoint/folder.h"
#include "common/ensure.h"
#include "launcher/control/liveness.h"
#include "launcher/control/measurement.h"
#include "proto/control.pb.h"
#include "proto/error_json.h"
#include "proto/time_limits.h"

namespace coxswain::launcher {
namespace {

// Of ranks that wait for each other, told.
constexpr std::size_t kMostWaits = 16;

}  // namespace

Json skip_event(const StepRow& row) {
  JsonObject event{{"type", "step_skipped"}, {"step", row.step}};
  if (row.not_finite_rank >= 0) {
    event["rank"] = row.not_finite_rank;
    event["cause"] = row.not_finite + " not finite";
  }
  if (row.loss_scale > 0) event["loss_scale"] = row.loss_scale;
  return event;
}

Coordinator::Coordinator(CoordinatorSettings settings)
    : settings_(std::move(settings)), restarts_(settings_.max_restarts), last_step_(settings_.first_step) {}
Coordinator::~Coordinator() = default;

std::vector<Decision> Coordinator::take() { return std::exchange(decisions_, {}); }

std::vector<Decision> Coordinator::agent_report(int agent, std::string_view body, TimePoint now) {
  control::AgentReport report;
  if (!report.ParseFromArray(body.data(), static_cast<int>(body.size()))) return take();
  const int node = node_of(agent);
  if (report.has_hello()) {
    if (node < 0) join(agent, report.hello().SerializeAsString(), now);
    return take();
  }
  // A node that was taken for lost has no part in what goes on without it.
  if (node < 0 || nodes_[static_cast<std::size_t>(node)].gone) return take();
  switch (report.kind_case()) {
    case control::AgentReport::kWorker:
      if (report.worker().generation() == generation_)
        on_worker(report.worker().rank(), report.worker().report().SerializeAsString(), now);
      break;
    case control::AgentReport::kExit: on_exit(node, report.exit().SerializeAsString(), now); break;
    case control::AgentReport::kEnded: on_generation_ended(node, report.ended().SerializeAsString(), now); break;
    case control::AgentReport::kStored: on_stored(node, report.stored().SerializeAsString(), now); break;
    case control::AgentReport::kListed: on_listed(node, report.listed().SerializeAsString(), now); break;
    case control::AgentReport::kLink: on_link(node, report.link().SerializeAsString()); break;
    case control::AgentReport::kStopSignal:
      // Every node gets the same notice; only a user asks twice.
      if (stop_signal_ == 0) request_stop(report.stop_signal(), now);
      break;
    case control::AgentReport::kErrorJson: {
      Failure failure;
      failure.node = node;
      failure.error = proto::error_from_text(report.error_json());
      failure.cause = failure.error->message;
      fail(std::move(failure), now);
      break;
    }
    default: break;
  }
  return take();
}

void Coordinator::start_measuring(TimePoint now) {
  phase_ = Phase::Measuring;
  measurements_.ranks = bind_all_devices(measurements_.nodes);
  measurements_.reports.assign(measurements_.ranks.size(), "");
  auto backend = resolve_backend(settings_.backend, measurements_.nodes);
  if (!backend) {
    Failure failure;
    failure.cause = backend.error().message;
    failure.error = backend.error();
    return fail(std::move(failure), now);
  }
  backend_ = *backend;
  if (!settings_.measures) return start_planning();
  start_generation(settings_.measure_work, measurements_.ranks, "", now);
}

void Coordinator::start_planning() {
  phase_ = Phase::Planning;
  end_by_.reset();
  decisions_.emplace_back(ChoosePlan{});
}

void Coordinator::start_generation(const std::string& work_bytes, const std::vector<RankBinding>& ranks,
                                   const std::string& plan_json, TimePoint) {
  bindings_ = ranks;
  ranks_.assign(ranks.size(), Rank{});
  num_ready_ = num_finished_ = num_running_ = num_kept_ = 0;
  control::AgentCommand to_all;
  control::StartGeneration& common = *to_all.mutable_start();
  common.mutable_work()->ParseFromString(work_bytes);
  from_checkpoint_ = !common.work().checkpoint().from().empty() || common.work().checkpoint().has_from_memory();
  common.mutable_work()->set_generation(generation_);
  common.mutable_work()->set_run_id(settings_.run_id);
  common.mutable_work()->set_backend(backend_);
  common.mutable_work()->set_world_size(static_cast<int>(ranks.size()));
  common.mutable_work()->set_plan_json(plan_json);
  if (phase_ == Phase::Training) {
    common.mutable_work()->set_action_timeout_seconds(action_timeout_);
    common.mutable_work()->set_stall_timeout_seconds(stall_timeout_);
    common.mutable_work()->set_step_timeout_seconds(std::max(limits::kStep, 2 * stall_timeout_));
    looks_ = looked_at_ ? looked_steps(last_step_ + 1, total_steps_) : std::vector<TraceSteps>();
    for (const TraceSteps& look : looks_) {
      control::TraceSettings& steps = *common.mutable_work()->add_looks();
      steps.set_first_step(look.first);
      steps.set_last_step(look.last);
    }
  }
  for (const auto& [name, value] : settings_.environment) (*common.mutable_environment())[name] = value;
  common.set_master_addr(settings_.master_addr);
  common.set_num_nodes(static_cast<int>(nodes_.size()));
  std::vector<control::AgentCommand> commands(nodes_.size());
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    common.add_rank_nodes(ranks[r].node);
    auto& placement = *commands[static_cast<std::size_t>(ranks[r].node)].mutable_start()->add_ranks();
    placement.set_rank(static_cast<int>(r));
    placement.set_local_device(ranks[r].local_device);
    placement.set_device_class(ranks[r].device_class);
  }
  // Serialised messages one behind the other are one: what all have in common is written once.
  const std::string common_bytes = to_all.SerializeAsString();
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    nodes_[n].running = commands[n].start().ranks_size() > 0;
    if (!nodes_[n].running) {
      if (generation_ > 1 && !nodes_[n].gone) let_kept_go(nodes_[n]);
      continue;
    }
    ++num_running_;
    commands[n].mutable_start()->set_node_rank(static_cast<int>(n));
    commands[n].mutable_start()->set_copy_to(copies_go_to(static_cast<int>(n)));
    decisions_.emplace_back(SendCommand{nodes_[n].agent, common_bytes + commands[n].SerializeAsString()});
  }
}

/// Its processes of the generation before, which may hold a state, are of no use.
void Coordinator::let_kept_go(const Node& node) {
  control::AgentCommand command;
  command.mutable_stop()->set_generation(generation_ - 1);
  decisions_.emplace_back(SendCommand{node.agent, command.SerializeAsString()});
}

void Coordinator::on_worker(int number, std::string_view body, TimePoint now) {
  control::WorkerReport report;
  if (number < 0 || number >= static_cast<int>(ranks_.size()) ||
      !report.ParseFromArray(body.data(), static_cast<int>(body.size())))
    return;
  // A step that was taken before its generation ended may be told later.
  if (phase_ == Phase::Stopping && report.has_step())
    open_steps_.add(number, static_cast<int>(ranks_.size()), report.step().SerializeAsString());
  if (phase_ != Phase::Measuring && phase_ != Phase::Training) return;
  const auto index = static_cast<std::size_t>(number);
  Rank& rank = ranks_[index];
  switch (report.kind_case()) {
    case control::WorkerReport::kReady: {
      rank.address = report.ready();
      if (!std::exchange(rank.ready, true)) ++num_ready_;
      if (num_ready_ < ranks_.size()) return;
      control::AgentCommand command;
      command.mutable_addresses()->set_generation(generation_);
      for (const Rank& r : ranks_) command.mutable_addresses()->add_addresses(r.address);
      send_to_all(command.SerializeAsString());
      break;
    }
    case control::WorkerReport::kStep: {
      const std::int64_t before = last_step_;
      on_step(number, report.step().SerializeAsString(), now);
      if (stop_signal_ != 0 && !settings_.saves && last_step_ > before) stop_everything(0, now);
      break;
    }
    case control::WorkerReport::kStalled: on_stalled(number, report.stalled(), now); break;
    case control::WorkerReport::kSaved: on_saved(number, report.saved().SerializeAsString(), now); break;
    case control::WorkerReport::kMeasured: measurements_.reports[index] = report.measured().SerializeAsString(); break;
    case control::WorkerReport::kChecked: measurements_.reports[index] = report.checked().SerializeAsString(); break;
    case control::WorkerReport::kFinished:
      if (!std::exchange(rank.finished, true)) ++num_finished_;
      if (num_finished_ == ranks_.size()) end_by_ = after(now, limits::kGoodbye);
      break;
    case control::WorkerReport::kFailure: {
      Failure failure;
      failure.rank = number;
      failure.node = bindings_[index].node;
      failure.primary = !report.failure().peer_lost();
      failure.error = proto::error_from_text(report.failure().error_json());
      failure.cause = failure.error->message;
      suspect(std::move(failure), now);
      break;
    }
    default: break;
  }
}

/// No process ended, no action computes too long: they would wait for each other until their step's limit.
void Coordinator::on_stalled(int number, const std::string& pending, TimePoint now) {
  ranks_[static_cast<std::size_t>(number)].stalled = pending;
  if (std::any_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.stalled.empty(); })) return;
  Failure failure;
  failure.rank = number;
  failure.node = bindings_[static_cast<std::size_t>(number)].node;
  failure.primary = true;
  failure.cause = "every rank waits for another";
  for (std::size_t r = 0; r < std::min(ranks_.size(), kMostWaits); ++r)
    failure.evidence += (r > 0 ? "\n" : "") + ("rank " + std::to_string(r)) + ": " + ranks_[r].stalled;
  fail(std::move(failure), now);
}

void Coordinator::on_step(int rank, std::string_view bytes, TimePoint now) {
  open_steps_.add(rank, static_cast<int>(ranks_.size()), bytes);
  while (auto row = open_steps_.next(generation_)) {
    if (row->skipped) record(skip_event(*row));
    last_step_ = row->step;
    memory_starts_ = 0;
    if (failed_since_ && last_step_ > failed_step_) tell_recovered(last_step_, now);
    decisions_.emplace_back(RecordStep{std::move(*row)});
    if (stop_signal_ != 0 && !settings_.saves) return;  // later steps are not part of the run any more
  }
}

void Coordinator::on_exit(int node, std::string_view bytes, TimePoint now) {
  control::WorkerExit exit;
  exit.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (exit.clean() || exit.generation() != generation_) return;
  Failure failure;
  failure.rank = exit.rank();
  failure.node = node;
  failure.cause = exit.cause();
  failure.primary = !exit.peer_lost();
  if (!exit.error_json().empty()) failure.error = proto::error_from_text(exit.error_json());
  // What it said of itself tells more than the exit code that followed.
  if (failure.error && failure.primary) failure.cause = failure.error->message;
  failure.evidence = exit.evidence();
  failure.log = exit.log();
  if (failure.primary) return fail(std::move(failure), now);
  suspect(std::move(failure), now);
}

std::set<int> Coordinator::nodes_left() const {
  std::set<int> left;
  for (std::size_t node = 0; node < nodes_.size(); ++node)
    if (!nodes_[node].gone) left.insert(static_cast<int>(node));
  return left;
}

void Coordinator::stop_everything(double grace_seconds, TimePoint now, Phase then) {
  phase_ = then;
  suspected_.reset();
  suspected_since_.reset();
  suspect_until_.reset();
  start_at_.reset();
  list_by_.reset();
  begin_at_.reset();
  control::AgentCommand command;
  command.mutable_stop()->set_generation(generation_);
  command.mutable_stop()->set_grace_seconds(grace_seconds);
  command.mutable_stop()->set_keeps(then == Phase::Stopping);
  SendToAll send{{}, command.SerializeAsString()};
  for (const Node& node : nodes_) {
    if (node.running) send.agents.push_back(node.agent);
  }
  if (!send.agents.empty()) decisions_.emplace_back(std::move(send));
  end_by_ = after(now, grace_seconds + (then == Phase::Stopping ? limits::kGenerationGone : limits::kKill));
  finish_if_done(now);
}

void Coordinator::on_generation_ended(int node, std::string_view bytes, TimePoint now) {
  control::GenerationEnded ended;
  ended.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  if (ended.generation() != generation_) return;
  num_kept_ += ended.kept();
  for (const control::RankHeld& held : ended.held())
    if (held.rank() >= 0 && held.rank() < num_ranks())
      held_states_.add(held.rank(), bindings_[static_cast<std::size_t>(held.rank())], held.held().SerializeAsString());
  let_go(nodes_[static_cast<std::size_t>(node)]);
  finish_if_done(now);
}

/// It has no rank of the generation any more, or is not waited for.
void Coordinator::let_go(Node& node) {
  if (std::exchange(node.running, false)) --num_running_;
}

void Coordinator::finish_if_done(TimePoint now) {
  if (num_running_ > 0) return;
  if (phase_ == Phase::Measuring) {
    if (suspected_) return;
    start_planning();
  } else if (phase_ == Phase::Training) {
    if (suspected_ || !open_saves_.empty()) return;
    if (growth_ == Growth::Moving && last_step_ < total_steps_ && stop_signal_ == 0) return move_on(now);
    end_run(now);
  } else if (phase_ == Phase::Stopping) {
    end_by_.reset();
    if (publishing_ > 0) return;
    auto in_memory = point_in_memory(now);
    open_steps_.clear();
    open_saves_.clear();
    if (!in_memory) return find_checkpoint(now);
    phase_ = Phase::Recovering;
    decisions_.emplace_back(FindCheckpoint{std::move(in_memory)});
  } else if (phase_ == Phase::Ending) {
    end_run(now);
  }
}

void Coordinator::take_plan(const ChosenPlan& plan) {
  ++plans_taken_;
  bindings_ = plan.ranks;
  plan_json_ = plan.plan_json;
  plan_hash_ = plan.plan_hash;
  // A compute action that runs longer makes no progress; never so short that the first actions of a process, or a
  // machine that is busy, look like it.
  action_timeout_ = std::max(limits::kLeastHung, limits::kHungFactor * plan.longest_action_seconds);
  // Nothing that is sent takes longer than the step that it is of.
  stall_timeout_ = std::max(action_timeout_, limits::kHungFactor * plan.step_seconds);
  planned_without_ = missing_from(plan);
  looked_at_ = plan.looked_at;
}

std::vector<Decision> Coordinator::plan_chosen(const ChosenPlan& plan, TimePoint now) {
  if (phase_ == Phase::Replanning) {
    take_plan(plan);
    phase_ = Phase::Recovering;
    start_when_allowed(now);
    return take();
  }
  if (phase_ == Phase::Training && growth_ == Growth::Asked) consider(plan);
  if (phase_ != Phase::Planning) return take();
  if (plan.ranks.empty()) {
    end_run(now);
    return take();
  }
  total_steps_ = plan.steps;
  take_plan(plan);
  if (settings_.asks_nodes)
    find_checkpoint(now);
  else
    begin_from({"", settings_.first_step, {}}, now);
  return take();
}

std::vector<Decision> Coordinator::plan_failed(Error error, TimePoint now) {
  if (phase_ == Phase::Replanning) {
    if (!failure_) failure_ = Failure{};  // nodes were lost while the run moved to another plan
    failure_->error = std::move(error);   // the node's loss is the cause; this is why the run cannot go on without it
    stop_everything(0, now);
    return take();
  }
  if (growth_ == Growth::Asked) {
    growth_ = Growth::None;  // the run goes on as it is
    return take();
  }
  return run_failed(std::move(error), now);
}

std::vector<Decision> Coordinator::run_failed(Error error, TimePoint now) {
  Failure failure;
  failure.cause = error.message;
  failure.error = std::move(error);
  fail(std::move(failure), now);
  return take();
}

std::vector<Decision> Coordinator::agent_gone(int agent, std::string_view why, TimePoint now) {
  const int place = node_of(agent);
  std::erase_if(newcomers_, [agent](const Newcomer& newcomer) { return newcomer.agent == agent; });
  std::erase_if(doubtful_, [agent](const Doubtful& one) { return one.newcomer.agent == agent; });
  if (place < 0) return take();
  if (phase_ == Phase::Joining) {
    nodes_.erase(nodes_.begin() + place);
    number_places();
    if (static_cast<int>(nodes_.size()) < settings_.num_nodes) begin_at_.reset();
    return take();
  }
  nodes_[static_cast<std::size_t>(place)].gone = true;
  let_go(nodes_[static_cast<std::size_t>(place)]);
  held_states_.lose(place);
  lost_nodes_.push_back(place);
  if (phase_ == Phase::Ending) {
    finish_if_done(now);
    return take();
  }
  if (phase_ == Phase::Ended) return take();
  const std::vector<int> ranks = ranks_on(lost_nodes_.back());
  record(JsonObject{{"type", "node_lost"},
                    {"node", lost_nodes_.back()},
                    {"cause", std::string(why)},
                    {"ranks", JsonArray(ranks.begin(), ranks.end())},
                    {"suspected_seconds", suspected_seconds(now)}});
  Failure failure;
  failure.node = lost_nodes_.back();
  failure.cause = std::string(why);
  failure.node_lost = true;
  fail(std::move(failure), now);
  lose_parts(lost_nodes_.back(), now);
  look_at_doubtful(now);
  return take();
}

std::vector<Decision> Coordinator::stop_requested(int signal, TimePoint now) {
  request_stop(signal, now);
  return take();
}

void Coordinator::request_stop(int signal, TimePoint now) {
  if (phase_ == Phase::Ended || phase_ == Phase::Ending) return;
  const bool again = stop_signal_ != 0;
  stop_signal_ = signal;
  if (phase_ == Phase::Training && !again) {
    stop_by_ = after(now, settings_.shutdown_timeout_seconds);  // a step that lasts longer is given up
    if (settings_.saves) ask_save(true);
  } else {
    stop_everything(0, now);
  }
}

std::vector<Decision> Coordinator::restarted(TimePoint now) {
  record(JsonObject{{"type", "coordinator_restarted"}, {"generation", generation_}, {"step", last_step_}});
  const TimePoint patient = after(now, phase_ == Phase::Stopping ? limits::kGenerationGone : limits::kKept);
  for (std::optional<TimePoint>* limit : {&suspect_until_, &end_by_, &stop_by_, &list_by_}) {
    if (*limit) *limit = std::max(**limit, patient);
  }
  all_back_by_ = after(now, limits::kAgentsBack);
  for (Doubtful& one : doubtful_) one.refuse_at = refusal_time(now);
  return take();
}

std::vector<Decision> Coordinator::steps_taken(std::int64_t step, TimePoint now) {
  last_step_ = step;
  memory_starts_ = 0;
  // Of a step on both sides of a plan or a look the journal has kept the reports before that.
  open_steps_.forget(step);
  if (failed_since_ && last_step_ > failed_step_) tell_recovered(last_step_, now);
  return take();
}

bool Coordinator::steps_well() const {
  return phase_ == Phase::Training && !failed_since_ && !suspected_ && stop_signal_ == 0;
}

bool Coordinator::due(TimePoint now) const {
  const auto passed = [now](const std::optional<TimePoint>& at) { return at && now >= *at; };
  const bool training = phase_ == Phase::Training;
  const bool doubts =
      std::any_of(doubtful_.begin(), doubtful_.end(), [now](const Doubtful& one) { return now >= one.refuse_at; });
  return doubts || passed(suspect_until_) || passed(start_at_) || passed(end_by_) || passed(list_by_) ||
         passed(begin_at_) || (training && (passed(stop_by_) || passed(save_at_) || may_grow() || needs_first_save()));
}

std::vector<Decision> Coordinator::tick(TimePoint now) {
  if (suspect_until_ && now >= *suspect_until_) {
    suspect_until_.reset();
    fail(*suspected_, now);
  }
  if (begin_at_ && now >= *begin_at_) begin_with_nodes(now);
  if (!doubtful_.empty()) look_at_doubtful(now);
  if (stop_by_ && phase_ == Phase::Training && now >= *stop_by_) stop_everything(0, now);
  if (start_at_ && now >= *start_at_) start_again(now);
  if (list_by_ && now >= *list_by_) end_listing(now);
  if (save_at_ && now >= *save_at_ && phase_ == Phase::Training) {
    save_at_.reset();
    ask_save(false);
  }
  if (needs_first_save()) {
    first_save_asked_ = true;
    ask_save(false);
  }
  if (may_grow()) {
    growth_ = Growth::Asked;
    decisions_.emplace_back(ChoosePlan{});
  }
  if (end_by_ && now >= *end_by_) {
    end_by_.reset();
    if (phase_ == Phase::Training || phase_ == Phase::Measuring) {
      // Finished ranks that do not end: what they computed is complete, so it is no failure.
      control::AgentCommand command;
      command.mutable_stop()->set_generation(generation_);
      send_to_all(command.SerializeAsString());
    } else if (phase_ == Phase::Stopping) {
      stop_everything(0, now);  // an agent that does not end its ranks begins no new ones
    } else if (phase_ == Phase::Ending) {
      end_run(now);
    }
  }
  return take();
}

void Coordinator::end_run(TimePoint) {
  if (phase_ == Phase::Ended) return;
  phase_ = Phase::Ended;
  RunEnded ended;
  if (failure_) {
    ended.error = failure_error(*failure_, position());
    ended.exit_code = is_hopeless() ? ExitCode::Hopeless : exit_code_for(ended.error->code);
  } else if (stop_signal_ != 0) {
    ended.signal = stop_signal_;
    const bool saved = last_saved_ == last_step_;
    ended.exit_code = saved ? ExitCode::Stopped : static_cast<ExitCode>(128 + stop_signal_);
    ended.error = stopped_error(stop_signal_, position());
  }
  record(JsonObject{{"type", "job_finished"}, {"exit_code", static_cast<int>(ended.exit_code)}, {"steps", last_step_}});
  control::AgentCommand command;
  command.mutable_over()->set_exit_code(static_cast<int>(ended.exit_code));
  if (ended.error) command.mutable_over()->set_text(to_text(*ended.error));
  send_to_all(command.SerializeAsString());
  for (const Newcomer& newcomer : newcomers_)
    decisions_.emplace_back(SendCommand{newcomer.agent, command.SerializeAsString()});
  for (const Doubtful& one : std::exchange(doubtful_, {}))
    decisions_.emplace_back(SendCommand{one.newcomer.agent, command.SerializeAsString()});
  decisions_.emplace_back(std::move(ended));
}

void Coordinator::send_to_all(const std::string& body) {
  SendToAll send{{}, body};
  for (const Node& node : nodes_) {
    if (!node.gone) send.agents.push_back(node.agent);
  }
  decisions_.emplace_back(std::move(send));
}

RunPosition Coordinator::position() const {
  RunPosition position{generation_, last_step_, last_saved_, "", {}, is_hopeless(), settings_.resume_hint};
  if (!failure_ || failure_->node < 0) return position;
  position.node = measurements_.nodes.empty() ? "node " + std::to_string(failure_->node)
                                              : measurements_.nodes[static_cast<std::size_t>(failure_->node)].name;
  position.node_ranks = ranks_on(failure_->node);
  return position;
}

}  // namespace coxswain::launcher
