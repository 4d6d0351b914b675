#include "bench/support/simulated_coordinator.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>

#include "proto/error_json.h"

namespace coxswain::bench {
namespace {

using launcher::after;
using launcher::Decision;
using launcher::Input;
using launcher::InputKind;

// As launcher/control/coordinator_process.cpp.
constexpr std::size_t kMostInputs = 256;
constexpr double kGoodbyeSeconds = 1.0, kJoinSeconds = 60;
constexpr double kBackSeconds = limits::kAgentsBack;

launcher::CoordinatorSettings settings_of(const Scenario& scenario) {
  launcher::CoordinatorSettings settings;
  settings.num_nodes = scenario.num_nodes;
  settings.run_id = "run";
  settings.measures = scenario.measures;
  settings.backend = "host";
  settings.saves = scenario.save_every > 0;
  settings.save_every = scenario.save_every;
  settings.max_restarts = 1 << 20;
  return settings;
}

void mix(std::uint64_t& hash, std::uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL + (hash >> 29U); }

void mix(std::uint64_t& hash, std::string_view text) { mix(hash, std::hash<std::string_view>()(text)); }

/// Of all that is sent, begun or recorded. `events`: their text too.
std::uint64_t hash_of(const std::vector<Decision>& decisions, bool events) {
  std::uint64_t hash = decisions.size();
  for (const Decision& decision : decisions) {
    mix(hash, decision.index());
    if (const auto* send = std::get_if<launcher::SendCommand>(&decision)) {
      mix(hash, static_cast<std::uint64_t>(send->agent));
      mix(hash, send->body);
    } else if (const auto* to_all = std::get_if<launcher::SendToAll>(&decision)) {
      for (const int agent : to_all->agents) mix(hash, static_cast<std::uint64_t>(agent));
      mix(hash, to_all->body);
    } else if (const auto* event = std::get_if<launcher::RecordEvent>(&decision); event && events) {
      mix(hash, to_text(event->event));
    } else if (const auto* step = std::get_if<launcher::RecordStep>(&decision)) {
      mix(hash, static_cast<std::uint64_t>(step->row.step));
    } else if (const auto* publish = std::get_if<launcher::PublishCheckpoint>(&decision)) {
      mix(hash, static_cast<std::uint64_t>(publish->progress.step));
    } else if (const auto* over = std::get_if<launcher::RunEnded>(&decision)) {
      mix(hash, static_cast<std::uint64_t>(over->exit_code));
    }
  }
  return hash;
}

}  // namespace

SimulatedCoordinator::SimulatedCoordinator(World& world)
    : world_(world),
      core_(settings_of(world.scenario)),
      heartbeat_(kBeatSeconds, world.time.now()),
      join_by_(after(world.time.now(), kJoinSeconds)) {}

void SimulatedCoordinator::begin() {
  ++world_.result.coordinators;
  restore();
  wake_in(0);
}

void SimulatedCoordinator::restore() {
  events_told_ = world_.disk.events.size();
  rows_told_ = world_.disk.rows;
  if (world_.disk.journal.empty()) return;
  replaying_ = true;
  compacted_ = std::any_of(world_.disk.journal.begin(), world_.disk.journal.end(),
                           [](const Disk::Entry& entry) { return entry.input.kind == InputKind::StepsTaken; });
  for (std::size_t i = 0; i < world_.disk.journal.size(); ++i) apply(i);
  replaying_ = false;
  restored_ = true;
  world_.invariants.require(
      num_events_ >= events_told_ && num_rows_ >= rows_told_,
      "a coordinator made anew knows of fewer lines than the files hold: it will pass over new ones");
  const TimePoint now = world_.time.now();
  lines_.expect_back(after(now, kBackSeconds));
  inputs_.push_back({InputKind::Restarted, now, 0, 0, 0, ""});
}

std::shared_ptr<Connection> SimulatedCoordinator::accept(SimulatedAgent& agent) {
  if (dead_) return nullptr;
  auto connection =
      std::make_shared<Connection>(world_.time, world_.random, agent, agent.cut_until(), weak_from_this());
  connection->line = lines_.open(*connection);
  open_[connection->line] = connection;
  return connection;
}

void SimulatedCoordinator::arrived(Connection& connection, std::string body) {
  push(FromLine{connection.line, std::move(body)});
}

void SimulatedCoordinator::ended(Connection& connection) {
  lines_.close(connection.line);
  const int line = connection.line;
  open_.erase(line);
  // A process that stands still has not read what came; a connection that is cut may take it along.
  if (world_.time.now() < paused_until_ && world_.random.chance(0.5))
    std::erase_if(events_, [line](const Happening& happening) {
      const auto* from = std::get_if<FromLine>(&happening);
      return from != nullptr && from->line == line;
    });
  push(LineEnded{line});
}

void SimulatedCoordinator::push(Happening happening) {
  if (dead_) return;
  events_.push_back(std::move(happening));
  wake_in(world_.random.between(0, 0.002));
}

/// Sooner than it would; events that come meanwhile are taken together.
void SimulatedCoordinator::wake_in(double seconds) {
  const TimePoint at = std::max(after(world_.time.now(), seconds), paused_until_);
  if (at >= wakes_at_ || dead_) return;
  wakes_at_ = at;
  world_.time.at(at, [weak = weak_from_this(), at] {
    if (const auto self = weak.lock(); self && self->wakes_at_ == at) self->wake();
  });
}

/// One turn of the loop of CoordinatorProcess::run.
void SimulatedCoordinator::wake() {
  wakes_at_ = TimePoint::max();
  if (dead_) return;
  const TimePoint now = world_.time.now();
  if (now < paused_until_) return wake_in(0);
  if (ended_) return say_goodbye();
  take_events();
  if (dead_) return;
  if (heartbeat_.due(now)) lines_.beat(now);
  for (Input& gone : lines_.not_back(now)) inputs_.push_back(std::move(gone));
  if (core_.measurements().nodes.empty() && now >= join_by_)
    push(Told{InputKind::RunFailed,
              proto::error_to_text({ErrorCode::DeadlineExceeded, "not every node came", "", "", "", ""})});
  if (core_.due(now)) inputs_.push_back({InputKind::Tick, now, 0, 0, 0, ""});
  if (ended_) goodbye_by_ = after(now, restored_ ? kBackSeconds : kGoodbyeSeconds);
  wake_in(events_.empty() && inputs_.empty() ? limits::kTick : 0.0005);
}

void SimulatedCoordinator::take_events() {
  for (std::size_t i = 0; i < kMostInputs && !events_.empty(); ++i) {
    Happening happening = std::move(events_.front());
    events_.pop_front();
    for (Input& input : inputs_of(happening)) inputs_.push_back(std::move(input));
  }
  const std::vector<Input> inputs = std::exchange(inputs_, {});
  if (inputs.empty() || dies(Moment::BeforeJournal)) return;
  world_.result.inputs += static_cast<std::int64_t>(inputs.size());
  const std::size_t first = world_.disk.journal.size();
  for (const Input& input : inputs) world_.disk.journal.push_back({input, 0, false});
  if (dies(Moment::AfterJournal)) return;
  if (!working_) begin_work();
  for (std::size_t i = first; i < first + inputs.size(); ++i) {
    if (dies(Moment::BetweenInputs)) return;
    if (world_.disk.journal[i].input.step > 0) ++step_reports_;
    apply(i);
    if (dead_) return;
  }
  if (world_.planted == Planted::ForgetsAnInput && world_.disk.journal.size() > 40) {
    world_.disk.journal.erase(world_.disk.journal.begin() + 20);
  }
  if (step_reports_ >= world_.scenario.steps_kept && core_.undisturbed()) drop_steps();
}

std::vector<Input> SimulatedCoordinator::inputs_of(Happening& happening) {
  const TimePoint now = world_.time.now();
  if (auto* from = std::get_if<FromLine>(&happening)) return lines_.receive(from->line, from->envelope, now);
  if (const auto* line = std::get_if<LineEnded>(&happening)) {
    lines_.ended(line->line, now);
    return {};
  }
  auto& told = std::get<Told>(happening);
  return {Input{told.kind, now, 0, 0, 0, std::move(told.body)}};
}

/// As CoordinatorProcess::drop_steps and Journal::replace_steps.
void SimulatedCoordinator::drop_steps() {
  step_reports_ = 0;
  const Json output =
      JsonObject{{"events", static_cast<std::int64_t>(num_events_)}, {"rows", static_cast<std::int64_t>(num_rows_)}};
  const launcher::StepsTaken taken{core_.last_step(), output, lines_.taken()};
  auto& journal = world_.disk.journal;
  // As Journal::replace_steps has it: what followed from a plan, or from a look at steps, depended on those before it.
  const auto kept = std::find_if(journal.rbegin(), journal.rend(), [](const Disk::Entry& entry) {
    constexpr std::array kKinds{InputKind::RecoveryFound, InputKind::PlanChosen, InputKind::PlanFailed,
                                InputKind::Calibrated};
    return std::find(kKinds.begin(), kKinds.end(), entry.input.kind) != kKinds.end();
  });
  journal.erase(std::remove_if(kept.base(), journal.end(),
                               [&taken](const Disk::Entry& entry) {
                                 const Input& input = entry.input;
                                 return (input.step > 0 && input.step <= taken.step) ||
                                        input.kind == InputKind::StepsTaken;
                               }),
                journal.end());
  journal.push_back({{InputKind::StepsTaken, world_.time.now(), 0, 0, 0, to_text(to_json(taken))}, 0, false});
}

/// The only way in which anything changes: live, and again from the journal.
void SimulatedCoordinator::apply(std::size_t index) {
  Disk::Entry& entry = world_.disk.journal[index];
  if (world_.tell && !replaying_)
    world_.tell("  input of kind " + std::to_string(static_cast<int>(entry.input.kind)) + ", agent " +
                std::to_string(entry.input.agent) + ", number " + std::to_string(entry.input.number));
  lines_.took(entry.input);
  know_agent(entry.input);
  lose_agent(entry.input);
  std::vector<Decision> decisions = decide(entry.input);
  compare(entry, decisions);
  carry_out(std::move(decisions));
  if (entry.input.kind != InputKind::StepsTaken) return;
  if (const auto taken = launcher::steps_taken_from_json(parse_json(entry.input.body).value_or(Json()))) {
    lines_.took(*taken);
    num_events_ = static_cast<std::size_t>(taken->output["events"].integer());
    num_rows_ = static_cast<std::size_t>(taken->output["rows"].integer());
  }
}

std::vector<Decision> SimulatedCoordinator::decide(const Input& input) {
  const auto json = [&input] { return parse_json(input.body).value_or(Json()); };
  switch (input.kind) {
    case InputKind::AgentReport: return core_.agent_report(input.agent, input.body, input.at);
    case InputKind::AgentGone: return core_.agent_gone(input.agent, input.body, input.at);
    case InputKind::PlanChosen: return decide_plan(input);
    case InputKind::RunFailed: choosing_ = false; return core_.run_failed(proto::error_from_text(input.body), input.at);
    case InputKind::PlanFailed:
      choosing_ = false;
      return core_.plan_failed(proto::error_from_text(input.body), input.at);
    case InputKind::Published: {
      if (!to_publish_.empty()) to_publish_.pop_front();
      if (working_) publish_next();
      const auto published = launcher::publication_from_json(json());
      return published ? core_.checkpoint_published(published->step, published->error, input.at)
                       : std::vector<Decision>();
    }
    case InputKind::RecoveryFound: {
      finding_.reset();
      const auto point = launcher::recovery_point_from_json(json());
      if (!point) return {};
      if (!replaying_) world_.invariants.recovers_to(point->step);
      return core_.recovery_found(*point, input.at);
    }
    case InputKind::StopRequested: return core_.stop_requested(std::atoi(input.body.c_str()), input.at);
    case InputKind::Tick: return core_.tick(input.at);
    case InputKind::StepsTaken: {
      const auto taken = launcher::steps_taken_from_json(json());
      return taken ? core_.steps_taken(taken->step, input.at) : std::vector<Decision>();
    }
    case InputKind::Restarted: return core_.restarted(input.at);
    case InputKind::Calibrated: {
      const auto record = launcher::calibration_record_from_json(json());
      if (!record) return {};
      std::optional<launcher::ChosenPlan> plan;
      if (record->plan) plan = record->plan->chosen;
      return core_.calibrated(record->generation, record->findings, plan, input.at);
    }
  }
  return {};
}

std::vector<Decision> SimulatedCoordinator::decide_plan(const Input& input) {
  choosing_ = false;
  const auto record = launcher::plan_record_from_json(parse_json(input.body).value_or(Json()));
  return record ? core_.plan_chosen(record->chosen, input.at) : core_.plan_failed(record.error(), input.at);
}

/// What was decided before has to be decided again. `coordinator_restarted` tells the last step, which after drop_steps
/// is known later than it was; the line stands in the file already.
void SimulatedCoordinator::compare(Disk::Entry& entry, const std::vector<Decision>& decisions) {
  const bool texts = entry.input.kind != InputKind::Restarted && entry.input.kind != InputKind::StepsTaken;
  const std::uint64_t hash = hash_of(decisions, texts);
  if (entry.decided && entry.input.kind != InputKind::StepsTaken)
    world_.invariants.require(entry.decisions == hash,
                              "made anew, the coordinator decides otherwise on an input of kind " +
                                  std::to_string(static_cast<int>(entry.input.kind)));
  entry.decisions = hash;
  entry.decided = true;
}

void SimulatedCoordinator::carry_out(std::vector<Decision> decisions) {
  for (Decision& decision : decisions) {
    if (!replaying_ && dies(Moment::BetweenDecisions)) return;
    if (auto* send = std::get_if<launcher::SendCommand>(&decision)) {
      lines_.send({send->agent}, std::move(send->body));
    } else if (auto* to_all = std::get_if<launcher::SendToAll>(&decision)) {
      lines_.send(to_all->agents, std::move(to_all->body));
    } else if (std::holds_alternative<launcher::ChoosePlan>(decision)) {
      choosing_ = true;
      if (working_) begin_choosing();
    } else if (const auto* event = std::get_if<launcher::RecordEvent>(&decision)) {
      record(event->event);
    } else if (const auto* step = std::get_if<launcher::RecordStep>(&decision)) {
      record_step(step->row);
    } else if (const auto* complete = std::get_if<launcher::PublishCheckpoint>(&decision)) {
      to_publish_.push_back(complete->progress.step);
      if (working_ && to_publish_.size() == 1) publish_next();
    } else if (const auto* find = std::get_if<launcher::FindCheckpoint>(&decision)) {
      finding_ = *find;
      if (working_) find_recovery();
    } else if (const auto* ended = std::get_if<launcher::RunEnded>(&decision)) {
      ended_ = true;
      exit_code_ = ended->exit_code;
    }
  }
}

void SimulatedCoordinator::record(const Json& event) {
  const std::size_t line = num_events_++;
  const std::string& type = event["type"].string();
  if (line < events_told_) {
    world_.invariants.require(compacted_ || world_.disk.events[line].find("\"" + type + "\"") != std::string::npos,
                              "line " + std::to_string(line + 1) + " of the events is now \"" + type + "\"");
    return;
  }
  const bool none_lost = world_.disk.events.size() == line;
  if (world_.planted == Planted::LosesAnEvent && line > 12 && none_lost && type != "generation_started") return;
  world_.disk.events.push_back(to_text(event));
  world_.progressed();
  world_.invariants.event(event);
  if (type == "generation_started" && event["generation"].integer() == 1) world_.training_began();
  if (world_.tell) world_.tell(world_.disk.events.back());
}

void SimulatedCoordinator::record_step(const launcher::StepRow& row) {
  if (num_rows_++ < rows_told_) return;
  calibrate_by_chance();
  ++world_.disk.rows;
  ++world_.result.steps;
  world_.progressed();
  world_.invariants.step(row);
  if (world_.planted == Planted::RecordsTwice && row.step == 7) world_.invariants.step(row);
  if (world_.tell) world_.tell("step " + std::to_string(row.step) + " of generation " + std::to_string(row.generation));
}

void SimulatedCoordinator::know_agent(const Input& input) {
  if (input.kind != InputKind::AgentReport || input.number != 0) return;
  control::AgentReport report;
  if (report.ParseFromString(input.body)) known_[input.agent] = world_.find_agent(report.hello().agent_id());
}

/// A node that is well, or could be again in time, may not be taken for lost.
void SimulatedCoordinator::lose_agent(const Input& input) {
  if (input.kind != InputKind::AgentGone) return;
  const auto found = known_.find(input.agent);
  if (found == known_.end() || found->second == nullptr) return;
  const SimulatedAgent& agent = *found->second;
  if (agent.index() >= world_.scenario.num_nodes) return;  // one that this run has no room for
  const bool was_cut =
      agent.cut_until() != TimePoint{} && agent.cut_until() > after(world_.time.now(), -kBackSeconds - 3);
  if (!replaying_)
    world_.invariants.require(!agent.alive() || was_cut,
                              "node " + std::to_string(agent.index()) + " is well and taken for lost: " + input.body);
  world_.invariants.node_lost(agent.index());
}

void SimulatedCoordinator::begin_work() {
  working_ = true;
  if (choosing_) begin_choosing();
  if (finding_) find_recovery();
  publish_next();
}

void SimulatedCoordinator::later(double seconds, std::function<void()> act) {
  world_.time.in(seconds, [weak = weak_from_this(), act = std::move(act)] {
    if (const auto self = weak.lock(); self && !self->dead_) act();
  });
}

void SimulatedCoordinator::publish_next() {
  if (to_publish_.empty()) return;
  const bool slow = world_.random.chance(0.05);
  later(world_.random.between(0.01, slow ? 4 : 0.3), [this, step = to_publish_.front()] {
    launcher::Publication publication{step, std::nullopt};
    auto& saved = world_.disk.checkpoints;
    if (world_.take_publication_fault()) {
      publication.error = Error{ErrorCode::FailedPrecondition, "no space", "disk", "", "", ""};
    } else {
      std::erase_if(saved, [step](const Disk::Checkpoint& other) { return other.step == step; });
      saved.push_back({step, false});
      std::sort(saved.begin(), saved.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
      if (saved.size() > 3) saved.erase(saved.begin());
    }
    push(Told{InputKind::Published, to_text(to_json(publication))});
  });
}

void SimulatedCoordinator::find_recovery() {
  if (finding_->known)
    return later(0,
                 [this, point = *finding_->known] { push(Told{InputKind::RecoveryFound, to_text(to_json(point))}); });
  later(world_.random.between(0.01, 0.4), [this] {
    launcher::RecoveryPoint point;
    const auto& saved = world_.disk.checkpoints;
    for (auto found = saved.rbegin(); found != saved.rend(); ++found) {
      if (!found->damaged) {
        point.folder = "step_" + std::to_string(found->step);
        point.step = found->step;
        break;
      }
      point.rejected.push_back(
          {ErrorCode::DataLoss, "a sum does not fit", "step_" + std::to_string(found->step), "", "", ""});
    }
    push(Told{InputKind::RecoveryFound, to_text(to_json(point))});
  });
}

/// All devices of all nodes that are left; now and then one node is left out, as a plan may do.
void SimulatedCoordinator::begin_choosing() {
  std::vector<char> used(static_cast<std::size_t>(world_.scenario.num_nodes), 1);
  for (const int node : core_.lost_nodes()) used[static_cast<std::size_t>(node)] = 0;
  const bool fails = world_.take_plan_fault() || std::find(used.begin(), used.end(), 1) == used.end();
  if (fails) world_.excuse();
  const auto left = std::count(used.begin(), used.end(), 1);
  if (left > 2 && world_.random.chance(0.1)) {
    const auto spare = world_.random.below(used.size());
    used[spare] = 0;
  }
  const launcher::PlanRecord record = plan_on(used);
  later(world_.random.between(0.05, 0.5), [this, fails, body = to_text(to_json(record))]() mutable {
    if (fails)
      push(Told{InputKind::PlanFailed,
                proto::error_to_text({ErrorCode::ResourceExhausted, "no plan fits", "", "", "", ""})});
    else
      push(Told{InputKind::PlanChosen, std::move(body)});
  });
}

/// All devices of the nodes that are `used`, beginning with any of them.
launcher::PlanRecord SimulatedCoordinator::plan_on(const std::vector<char>& used) {
  launcher::PlanRecord record;
  for (const launcher::RankBinding& rank : core_.measurements().ranks)
    if (used[static_cast<std::size_t>(rank.node)] != 0) record.chosen.ranks.push_back(rank);
  if (!record.chosen.ranks.empty()) {
    const auto first = world_.random.below(record.chosen.ranks.size());
    std::rotate(record.chosen.ranks.begin(), record.chosen.ranks.begin() + static_cast<std::ptrdiff_t>(first),
                record.chosen.ranks.end());
  }
  record.chosen.plan_json = "{}";
  record.chosen.steps = 1000;
  record.chosen.longest_action_seconds = 0.1;
  return record;
}

/// Now and then steps show that the cluster is another one, and mostly there is a plan for that. It may come when the
/// run has long been disturbed.
void SimulatedCoordinator::calibrate_by_chance() {
  if (!world_.random.chance(0.02)) return;
  launcher::CalibrationRecord record;
  record.generation = core_.generation();
  record.findings.push_back(JsonObject{{"what", "link"}});
  std::vector<char> used(static_cast<std::size_t>(world_.scenario.num_nodes), 1);
  for (const int node : core_.lost_nodes()) used[static_cast<std::size_t>(node)] = 0;
  if (world_.random.chance(0.8) && std::find(used.begin(), used.end(), 1) != used.end()) record.plan = plan_on(used);
  later(world_.random.between(0.05, 0.5),
        [this, body = to_text(to_json(record))]() mutable { push(Told{InputKind::Calibrated, std::move(body)}); });
}

/// As CoordinatorProcess::say_goodbye.
void SimulatedCoordinator::say_goodbye() {
  const TimePoint now = world_.time.now();
  if (goodbye_by_ == TimePoint{}) goodbye_by_ = after(now, restored_ ? kBackSeconds : kGoodbyeSeconds);
  for (; !events_.empty(); events_.pop_front()) {
    if (const auto* from = std::get_if<FromLine>(&events_.front())) lines_.receive(from->line, from->envelope, now);
    if (const auto* line = std::get_if<LineEnded>(&events_.front())) lines_.ended(line->line, now);
  }
  if (!lines_.all_hung_up() && now < goodbye_by_) return wake_in(0.02);
  dead_ = true;
  cut_all();
  world_.coordinator_done(exit_code_);
}

void SimulatedCoordinator::stop(int signal) { push(Told{InputKind::StopRequested, std::to_string(signal)}); }

void SimulatedCoordinator::pause(double seconds) {
  paused_until_ = after(world_.time.now(), seconds);
  wakes_at_ = TimePoint::max();
  wake_in(0);
}

void SimulatedCoordinator::kill(Moment moment, int countdown) {
  if (moment == Moment::Now) return die();
  moment_ = moment;
  countdown_ = countdown;
  later(0.5, [this] { die(); });
}

bool SimulatedCoordinator::dies(Moment moment) {
  if (countdown_ < 0 || moment != moment_ || countdown_-- > 0) return false;
  die();
  return true;
}

void SimulatedCoordinator::die() {
  if (dead_) return;
  dead_ = true;
  cut_all();
  world_.coordinator_died();
}

void SimulatedCoordinator::cut_all() {
  for (const auto& [line, connection] : open_) connection->cancel();
}

}  // namespace coxswain::bench
