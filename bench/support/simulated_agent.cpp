#include "bench/support/simulated_agent.h"

#include <algorithm>
#include <cstdlib>

#include "bench/support/coordinator_world.h"
#include "launcher/control/liveness.h"
#include "proto/error_json.h"

namespace coxswain::bench {
namespace {

using launcher::after;

// As launcher/control/coordinator_line.cpp.
constexpr double kComesBackSeconds = 20, kPauseSeconds = 0.05;

/// `fits`: its devices could be those of a node that was lost.
std::string make_hello(const std::string& id, int index, int node_rank, int num_devices, bool fits) {
  control::AgentReport report;
  control::AgentHello& hello = *report.mutable_hello();
  hello.set_agent_id(id);
  hello.set_node_rank(node_rank);
  hello.set_host("h" + std::to_string(index));
  hello.set_cores(num_devices);
  hello.set_memory_bytes(1 << 30);
  for (int i = 0; i < num_devices; ++i) {
    control::Device& device = *hello.add_devices();
    device.set_kind("cpu");
    device.set_cores(1);
    device.set_name(fits ? "c" : "another");
    device.set_memory_bytes(1 << 29);
  }
  return report.SerializeAsString();
}

std::string command_name(const control::AgentCommand& command) {
  const auto* field = control::AgentCommand::descriptor()->FindFieldByNumber(command.kind_case());
  return field == nullptr ? "nothing" : std::string(field->name());
}

std::string error_text(ErrorCode code, const std::string& message) {
  return proto::error_to_text({code, message, "", "", "", ""});
}

}  // namespace

SimulatedAgent::SimulatedAgent(World& world, int index, int node_rank)
    : world_(world),
      index_(index),
      id_("agent" + std::to_string(index)),
      hello_(make_hello(id_, index, node_rank, world.scenario.devices_per_node, index < world.scenario.num_nodes)),
      give_up_at_(TimePoint::max()) {}

void SimulatedAgent::connect() {
  if (!alive_ || connection_) return;
  connection_ = world_.connect(*this);
  if (connection_) {
    heard_ = world_.time.now();
    connection_->send_up(mailbox_.notice(hello_));
    mailbox_.send_again();
    return send_all();
  }
  if (world_.time.now() >= give_up_at_) {  // the coordinator is gone
    over_ = true;
    return running_ ? stop() : leave();
  }
  world_.time.in(kPauseSeconds, [this] { connect(); });
}

void SimulatedAgent::ended(Connection& connection) {
  if (!alive_ || &connection != connection_.get()) return;
  if (world_.tell) world_.tell("  " + id_ + " has no connection any more");
  connection_.reset();
  give_up_at_ = after(world_.time.now(), kComesBackSeconds);
  world_.time.in(world_.random.between(0.001, 0.05), [this] { connect(); });
}

void SimulatedAgent::beat() {
  if (!alive_ || !connection_) return;
  connection_->send_up(mailbox_.notice(launcher::agent_heartbeat()));
  if (world_.time.now() > after(heard_, limits::kSilence)) connection_->hang_up();
}

void SimulatedAgent::send_all() {
  if (!connection_) return;
  while (auto envelope = mailbox_.next()) connection_->send_up(std::move(*envelope));
}

void SimulatedAgent::send(const control::AgentReport& report) {
  mailbox_.add(report.SerializeAsString());
  send_all();
}

void SimulatedAgent::send_worker(int rank, control::WorkerReport report) {
  control::AgentReport up;
  up.mutable_worker()->set_rank(rank);
  up.mutable_worker()->set_generation(running_->number);
  *up.mutable_worker()->mutable_report() = std::move(report);
  send(up);
}

void SimulatedAgent::arrived(Connection& connection, std::string body) {
  if (!alive_ || &connection != connection_.get()) return;
  heard_ = world_.time.now();
  auto letters = mailbox_.open(body);
  send_all();  // what was taken makes room for more
  for (launcher::Mailbox::Letter& letter : letters) {
    if (letter.number > 0) mailbox_.took(letter.number);
    if (const control::AgentCommand* command = world_.parse_command(std::move(letter.body))) on_command(*command);
  }
}

void SimulatedAgent::on_command(const control::AgentCommand& command) {
  if (world_.tell && command.kind_case() != control::AgentCommand::kHeartbeat)
    world_.tell("  " + id_ + " in generation " + std::to_string(generation()) + " is told " + command_name(command));
  switch (command.kind_case()) {
    case control::AgentCommand::kStart: return start(command.start());
    case control::AgentCommand::kAddresses: return take_addresses(command.addresses());
    case control::AgentCommand::kAbort:
      if (running_ && !running_->stopping)
        world_.time.in(world_.random.between(0.005, 0.05), [this, serial = running_->serial] { peers_lost(serial); });
      return;
    case control::AgentCommand::kSave:
      // A rank that is not there yet hears nothing.
      if (running_ && running_->ranks.front().alive && running_->ranks.front().connected)
        world_.group_saves(running_->number, command.save().stop());
      return;
    case control::AgentCommand::kStop: return stop(command.stop().keeps());
    case control::AgentCommand::kOver: over_ = true; return running_ ? stop() : leave();
    default: return;
  }
}

void SimulatedAgent::start(const control::StartGeneration& start) {
  const int number = start.work().generation();
  world_.invariants.require(!running_, "node " + std::to_string(index_) + " is to start generation " +
                                           std::to_string(number) + " beside another");
  if (over_) return;
  Running running;
  running.number = number;
  running.serial = ++serials_;
  running.world_size = start.work().world_size();
  for (const auto& placement : start.ranks()) {
    Rank rank;
    rank.number = placement.rank();
    rank.local_device = placement.local_device();
    running.ranks.push_back(rank);
    world_.invariants.process_started(index_, number, placement.rank());
  }
  running_ = std::move(running);
  const std::string& from = start.work().checkpoint().from();  // "step_12"
  const bool in_memory = start.work().checkpoint().has_from_memory();
  const control::HeldState& memory = start.work().checkpoint().from_memory();
  running_->told_step = from.empty() ? 0 : std::atoll(from.c_str() + 5);
  running_->taken_in = number;
  if (in_memory) {
    running_->told_step = memory.state().step();
    running_->taken_in = memory.generation();
    std::erase_if(held_, [&](const Held& held) {
      return held.step != running_->told_step || held.generation != running_->taken_in;
    });
  } else {
    held_.clear();
  }
  world_.group_started(number, running_->world_size, running_->told_step, in_memory);
  if (std::exchange(spawn_fails_, false)) {
    world_.excuse();
    control::AgentReport report;
    report.set_error_json(error_text(ErrorCode::FailedPrecondition, "no more processes"));
    send(report);
    return stop();
  }
  world_.time.in(world_.random.between(0.03, 0.2), [this, serial = running_->serial] { become_ready(serial); });
}

void SimulatedAgent::become_ready(int serial) {
  if (!runs(serial) || running_->stopping) return;
  for (Rank& rank : running_->ranks) {
    if (!rank.alive || rank.hung) continue;
    rank.connected = true;
    control::WorkerReport report;
    report.set_ready(std::to_string(running_->number) + "." + std::to_string(rank.number));
    send_worker(rank.number, std::move(report));
  }
}

void SimulatedAgent::take_addresses(const control::RankAddresses& addresses) {
  if (!running_ || running_->number != addresses.generation()) return;
  int joined = 0;
  for (Rank& rank : running_->ranks) {
    if (!rank.alive || !rank.connected || rank.addressed || rank.hung) continue;
    rank.addressed = true;
    ++joined;
    for (const Held& held : held_)
      if (held.rank == rank.number && held.local_device == rank.local_device)
        for (const int parameter : held.parameters) world_.group_holds(running_->number, parameter);
    const bool own =
        rank.number < addresses.addresses_size() &&
        addresses.addresses(rank.number) == std::to_string(running_->number) + "." + std::to_string(rank.number);
    world_.invariants.require(own, "rank " + std::to_string(rank.number) + " of generation " +
                                       std::to_string(running_->number) + " does not find itself among the addresses");
  }
  world_.group_joined(running_->number, joined);
}

void SimulatedAgent::measured(int serial) {
  if (!runs(serial) || running_->stopping) return;
  for (const Rank& rank : running_->ranks) {
    if (!rank.alive || rank.hung) continue;
    control::WorkerReport report;
    report.mutable_measured()->set_memory_bytes_per_second(1);
    send_worker(rank.number, std::move(report));
  }
  finish(serial);
}

void SimulatedAgent::step_taken(std::int64_t step, bool saves, bool last) {
  const bool slow = world_.random.chance(0.05);
  reports_at_ = std::max(reports_at_, after(world_.time.now(), world_.random.between(0, slow ? 0.4 : 0.02)));
  world_.time.at(reports_at_,
                 [this, serial = running_->serial, step, saves, last] { step_done(serial, step, saves, last); });
}

void SimulatedAgent::step_done(int serial, std::int64_t step, bool saves, bool last) {
  if (!runs(serial) || running_->stopping) return;
  for (const Rank& rank : running_->ranks) {
    if (!rank.alive || rank.hung) continue;
    control::WorkerReport report;
    control::StepReport& told = *report.mutable_step();
    told.set_step(step);
    told.set_step_seconds(0.1);
    told.set_resident_bytes(running_->number);  // what Invariants::step looks at
    send_worker(rank.number, std::move(report));
  }
  running_->told_step = step;
  running_->taken_in = running_->number;
  const bool slow = world_.random.chance(0.05);
  if (saves) {  // one after the other
    written_at_ = std::max(written_at_, world_.time.now());
    written_at_ = after(written_at_, world_.random.between(0.02, slow ? 3 : 0.3));
    world_.time.at(written_at_, [this, serial, step, last] { write_shards(serial, step, last); });
  }
  if (last && !saves) finish(serial);
}

void SimulatedAgent::write_shards(int serial, std::int64_t step, bool last) {
  if (!runs(serial) || running_->stopping) return;
  for (const Rank& rank : running_->ranks) {
    if (!rank.alive || rank.hung) continue;
    control::WorkerReport report;
    control::ShardSaved& saved = *report.mutable_saved();
    saved.set_step(step);
    saved.set_copy_seconds(0.01);
    if (std::exchange(save_fails_, false))
      saved.set_error_json(error_text(ErrorCode::FailedPrecondition, "no space"));
    else
      saved.set_shard_json(R"({"bytes":1,"file":"rank_)" + std::to_string(rank.number) +
                           R"(","pieces":[],"sha256":"s"})");
    send_worker(rank.number, std::move(report));
  }
  if (last) finish(serial);
}

void SimulatedAgent::finish(int serial) {
  if (!runs(serial) || running_->stopping) return;
  for (const Rank& rank : running_->ranks) {
    if (!rank.alive || rank.hung) continue;
    control::WorkerReport report;
    report.mutable_finished();
    send_worker(rank.number, std::move(report));
  }
  world_.time.in(world_.random.between(0.001, 0.02), [this, serial] { end_finished(serial); });
}

void SimulatedAgent::end_finished(int serial) {
  const TimePoint now = world_.time.now();
  TimePoint later = now;
  for (std::size_t i = 0; runs(serial) && i < running_->ranks.size(); ++i) {
    Rank& rank = running_->ranks[i];
    if (!rank.alive || rank.hung) continue;
    if (rank.lives_until > now)
      later = std::max(later, rank.lives_until);
    else
      end_rank(rank, "exit 0", true, false);
  }
  if (later > now) world_.time.at(later, [this, serial] { end_finished(serial); });
}

void SimulatedAgent::peers_lost(int serial) {
  if (!runs(serial) || running_->stopping) return;
  for (std::size_t i = 0; runs(serial) && i < running_->ranks.size(); ++i) {
    Rank& rank = running_->ranks[i];
    if (!rank.alive || !rank.connected || rank.hung) continue;
    if (rank.parked) continue;
    report_failure(rank, true);
    if (world_.random.chance(0.7))
      rank.parked = true;  // its process waits for the next generation
    else
      end_rank(rank, "exit 1", false, true);
  }
}

void SimulatedAgent::state_lost(int serial) {
  if (!runs(serial) || running_->stopping) return;
  for (std::size_t i = 0; i < running_->ranks.size(); ++i)
    if (running_->ranks[i].alive && !running_->ranks[i].hung) fail_rank(i);
}

void SimulatedAgent::report_failure(const Rank& rank, bool peer_lost) {
  control::WorkerReport report;
  report.mutable_failure()->set_peer_lost(peer_lost);
  report.mutable_failure()->set_error_json(peer_lost ? error_text(ErrorCode::Unavailable, "a peer is lost")
                                                     : error_text(ErrorCode::Unknown, "it failed"));
  send_worker(rank.number, std::move(report));
}

void SimulatedAgent::end_rank(Rank& rank, const std::string& cause, bool clean, bool peer_lost) {
  rank.alive = false;
  const int number = running_->number;
  if (!ends_too_early_) world_.invariants.process_ended(index_, number, rank.number);
  if (clean || !running_->stopping) {
    control::AgentReport report;
    control::WorkerExit& exit = *report.mutable_exit();
    exit.set_generation(number);
    exit.set_rank(rank.number);
    exit.set_cause(cause);
    exit.set_clean(clean);
    exit.set_peer_lost(peer_lost);
    send(report);
  }
  end_if_done();
  if (!clean) world_.group_broken(number, true);
}

void SimulatedAgent::end_if_done() {
  if (std::any_of(running_->ranks.begin(), running_->ranks.end(), [](const Rank& rank) { return rank.alive; })) return;
  control::AgentReport report;
  report.mutable_ended()->set_generation(running_->number);
  for (const control::RankHeld& held : running_->held) *report.mutable_ended()->add_held() = held;
  running_.reset();
  send(report);
  if (over_) leave();
}

/// Of ranks that trained together, the last step that they told; of those that had not come so far, what they held
/// before.
void SimulatedAgent::keep_states() {
  std::vector<Held> kept;
  for (const Rank& rank : running_->ranks) {
    if (!rank.alive || !rank.connected || rank.hung || rank.lives_until > world_.time.now()) continue;
    if (rank.addressed) {
      kept.push_back({rank.number, rank.local_device, running_->taken_in, running_->told_step,
                      world_.parameters_of(rank.number, running_->world_size)});
      continue;
    }
    for (const Held& held : held_)
      if (held.rank == rank.number && held.local_device == rank.local_device) kept.push_back(held);
  }
  held_ = std::move(kept);
  for (const Held& held : held_) {
    control::RankHeld told;
    told.set_rank(held.rank);
    told.mutable_held()->set_generation(held.generation);
    told.mutable_held()->set_held_elements(static_cast<std::int64_t>(held.parameters.size()));
    told.mutable_held()->set_num_elements(world_.num_parameters());
    control::ShardSaved& state = *told.mutable_held()->mutable_state();
    state.set_step(held.step);
    std::string pieces;
    for (const int parameter : held.parameters)
      pieces += std::string(pieces.empty() ? "" : ",") + R"({"count":1,"dims":[1],"first":0,"parameter":"p)" +
                std::to_string(parameter) + R"("})";
    state.set_shard_json(R"({"bytes":0,"file":"memory","pieces":[)" + pieces + R"(],"sha256":""})");
    running_->held.push_back(std::move(told));
  }
}

void SimulatedAgent::stop(bool keeps) {
  if (!running_) return;
  running_->stopping = true;
  if (keeps && running_->held.empty() && running_->number > 0) keep_states();
  kill_all(running_->serial);
}

/// What SIGKILL does not end yet is looked at again when it may.
void SimulatedAgent::kill_all(int serial) {
  TimePoint last = after(world_.time.now(), world_.random.between(0.001, 0.02));
  for (const Rank& rank : running_->ranks) {
    if (rank.alive && rank.lives_until > last) last = rank.lives_until;
  }
  world_.time.at(last, [this, serial] {
    for (std::size_t i = 0; runs(serial) && i < running_->ranks.size(); ++i) {
      if (running_->ranks[i].alive) end_rank(running_->ranks[i], "signal 9", false, false);
    }
  });
}

void SimulatedAgent::leave() {
  alive_ = false;
  if (connection_) connection_->hang_up_after_last();
}

void SimulatedAgent::lose(bool silently) {
  alive_ = false;
  if (running_) {
    for (const Rank& rank : running_->ranks) {
      if (rank.alive) world_.invariants.process_ended(index_, running_->number, rank.number);
    }
    world_.group_broken(running_->number, true);
  }
  if (connection_) silently ? connection_->vanish() : connection_->hang_up();
  running_.reset();
}

void SimulatedAgent::cut(double seconds) {
  cut_until_ = std::max(cut_until_, after(world_.time.now(), seconds));
  if (running_ && seconds > 1) world_.group_broken(running_->number, true);
}

void SimulatedAgent::break_connection() {
  if (connection_) connection_->cancel();
}

void SimulatedAgent::kill_rank(std::size_t index, const std::string& cause) {
  Rank& rank = running_->ranks[index];
  if (rank.lives_until <= world_.time.now()) end_rank(rank, cause, false, false);
}

void SimulatedAgent::fail_rank(std::size_t index) {
  Rank& rank = running_->ranks[index];
  if (rank.connected) report_failure(rank, false);
  world_.time.in(world_.random.between(0.001, 0.4), [this, serial = running_->serial, index] {
    if (runs(serial) && !running_->stopping && running_->ranks[index].alive)
      end_rank(running_->ranks[index], "exit 1", false, false);
  });
}

void SimulatedAgent::lose_peer(std::size_t index) {
  Rank& rank = running_->ranks[index];
  if (rank.connected) report_failure(rank, true);
  end_rank(rank, "exit 1", false, true);
}

void SimulatedAgent::hang_rank(std::size_t index, double seconds) {
  running_->ranks[index].hung = true;
  world_.group_broken(running_->number, false);
  world_.time.in(seconds, [this, serial = running_->serial, index] {
    if (!runs(serial) || running_->stopping || !running_->ranks[index].alive) return;
    running_->ranks[index].hung = false;
    fail_rank(index);
  });
}

void SimulatedAgent::outlive_kill(std::size_t index, double seconds) {
  running_->ranks[index].lives_until = after(world_.time.now(), seconds);
}

bool SimulatedAgent::end_kept_rank(std::uint64_t choice) {
  if (!alive_ || running_ || held_.empty()) return false;
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(choice % held_.size()));
  return true;
}

void SimulatedAgent::report_late(std::uint64_t choice) {
  control::AgentReport up;
  up.mutable_worker()->set_rank(running_->ranks[choice % running_->ranks.size()].number);
  up.mutable_worker()->set_generation(running_->number - 1);
  control::WorkerReport& report = *up.mutable_worker()->mutable_report();
  const std::int64_t step = world_.invariants.last_step() + 1;
  switch (choice % 4) {
    case 0: report.set_ready("late"); break;
    case 1:
      report.mutable_step()->set_step(step);
      report.mutable_step()->set_resident_bytes(running_->number - 1);
      break;
    case 2:
      report.mutable_saved()->set_step(step);
      report.mutable_saved()->set_shard_json(R"({"bytes":1,"file":"late","pieces":[],"sha256":"s"})");
      break;
    default: report.mutable_finished(); break;
  }
  send(up);
}

}  // namespace coxswain::bench
