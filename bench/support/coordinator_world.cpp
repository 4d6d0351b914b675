#include "bench/support/coordinator_world.h"

#include <algorithm>
#include <cstdlib>

#include "bench/support/simulated_coordinator.h"

namespace coxswain::bench {
namespace {

// Without a line in a file for so long a run stands still: a pause between generations takes 60 s at most, a rank that
// hangs 30 s.
constexpr double kStillSeconds = 200;
// Agents that nobody told that the run is over find out within 20 s; what they kill may live for 14 s.
constexpr double kLeaveSeconds = 60;
constexpr double kLostSeconds = 40;
constexpr double kHangSeconds = 30;
// A rank that cannot reach a peer, as it begins, gives up.
constexpr double kConnectSeconds = 5;
// Ranks that are killed for the next generation have 10 s, less what their agent may not be heard.
constexpr double kTooLongToDie = 6;
// After the last fault.
constexpr std::int64_t kStepsAfter = 5;

/// From the bits of a choice that say how, not whom.
double choose_between(std::uint64_t choice, double low, double high) { return SeededRandom(choice).between(low, high); }

}  // namespace

World::World(Scenario scenario_, Planted planted_)
    : scenario(std::move(scenario_)), planted(planted_), random(scenario.seed), invariants(scenario.num_nodes) {}
World::~World() = default;

WorldResult World::run() {
  const bool named = random.chance(0.5);  // half of the runs name each node's rank
  for (int i = 0; i < scenario.num_nodes; ++i) {
    agents.push_back(std::make_unique<SimulatedAgent>(*this, i, named ? scenario.num_nodes - 1 - i : -1));
    if (planted == Planted::EndsTooEarly && i == 0) agents.back()->end_too_early();
  }
  start_coordinator();
  for (const auto& agent : agents) time.in(random.between(0, 0.5), [&agent] { agent->connect(); });
  time.in(kBeatSeconds, [this] { beat(); });
  if (scenario.early) training_began();
  while (!finished_ && !invariants.broken() && time.next()) {}
  result.generations = invariants.generation();
  result.nodes_lost = invariants.num_lost();
  result.seconds = time.seconds();
  result.broken = invariants.broken();
  return result;
}

void World::start_coordinator() {
  coordinator_ = std::make_shared<SimulatedCoordinator>(*this);
  coordinator_->begin();
}

void World::coordinator_died() {
  if (tell) tell("the coordinator is killed");
  time.in(random.between(0.2, 1.2), [this] { start_coordinator(); });
}

void World::coordinator_done(ExitCode exit_code) {
  done_ = true;
  done_at_ = time.now();
  result.exit_code = exit_code;
  check_outcome(exit_code);
}

void World::check_outcome(ExitCode exit_code) {
  if (exit_code == ExitCode::Done) return invariants.ended_well(std::max<std::int64_t>(last_step_, 1));
  const bool hopeless = exit_code == ExitCode::Hopeless && invariants.restarts_in_a_row() >= 2;
  const bool before_training = invariants.generation() == 0 && scenario.early;
  const bool nobody_left = invariants.num_lost() >= scenario.num_nodes;
  invariants.require(excused_ || hopeless || before_training || nobody_left,
                     "the run ended with exit " + std::to_string(static_cast<int>(exit_code)) +
                         ", and nothing had happened that it could not survive: " + disk.events.back());
}

void World::beat() {
  for (const auto& agent : agents) agent->beat();
  check_progress();
  time.in(kBeatSeconds, [this] { beat(); });
}

void World::check_progress() {
  for (const auto& agent : agents) check_left(*agent);
  if (!done_) {
    invariants.require(time.now() < launcher::after(progressed_at_, kStillSeconds),
                       "the run stands still: " + (disk.events.empty() ? "" : disk.events.back()));
    return;
  }
  finished_ = std::none_of(agents.begin(), agents.end(), [](const auto& agent) { return agent->alive(); });
  if (finished_) invariants.require(invariants.num_processes() == 0, "ranks are left after the run has ended");
  invariants.require(finished_ || time.now() < launcher::after(done_at_, kLeaveSeconds),
                     "an agent is left after the run has ended");
}

/// I8: who is taken for lost ends its ranks, as soon as it can be told or by itself.
void World::check_left(const SimulatedAgent& agent) {
  if (!invariants.is_lost(agent.index()) || !agent.alive()) return;
  const auto lost = lost_at_.try_emplace(agent.index(), time.now()).first->second;
  invariants.require(time.now() < launcher::after(std::max(lost, agent.cut_until()), kLostSeconds),
                     "node " + std::to_string(agent.index()) + " is taken for lost and goes on");
}

std::shared_ptr<Connection> World::connect(SimulatedAgent& agent) {
  if (done_ || !coordinator_ || agent.cut_until() > time.now()) return nullptr;
  return coordinator_->accept(agent);
}

/// Most of a large run's commands are alike for all nodes.
const control::AgentCommand* World::parse_command(std::string body) {
  if (body == parsed_body_) return &parsed_;
  parsed_body_.clear();
  if (!parsed_.ParseFromString(body)) return nullptr;
  parsed_body_ = std::move(body);
  return &parsed_;
}

SimulatedAgent* World::find_agent(const std::string& id) {
  const auto index = static_cast<std::size_t>(std::atoi(id.c_str() + std::string_view("agent").size()));
  if (index < agents.size()) return agents[index].get();
  return index - agents.size() < visitors.size() ? visitors[index - agents.size()].get() : nullptr;
}

int World::num_parameters() const {
  return scenario.seed % 3 == 0 ? 1 : scenario.num_nodes * scenario.devices_per_node;
}

std::vector<int> World::parameters_of(int rank, int world_size) const {
  const int parts = scenario.seed % 3 == 0 ? 1 : scenario.seed % 3 == 1 ? std::max(1, world_size / 2) : world_size;
  std::vector<int> parameters;
  for (int p = rank % parts; p < num_parameters(); p += parts) parameters.push_back(p);
  return parameters;
}

void World::group_started(int generation, int world_size, std::int64_t after_step, bool from_memory) {
  Group& group = groups_[generation];
  group.from_memory = from_memory;
  group.world_size = world_size;
  group.step = after_step;
  groups_.erase(groups_.begin(), groups_.lower_bound(generation - 3));
}

void World::group_joined(int generation, int num_ranks) {
  Group& group = groups_[generation];
  group.addressed += num_ranks;
  if (num_ranks == 0 || group.addressed < group.world_size) return;
  const bool whole = !group.from_memory || static_cast<int>(group.held.size()) == num_parameters();
  invariants.require(whole || kept_rank_ended_,
                     "generation " + std::to_string(generation) + " begins from memory, which lacks a parameter");
  kept_rank_ended_ = false;
  if (!whole) return lose_state(generation);
  if (group.broken) return lose_peers(generation, kConnectSeconds, kConnectSeconds + 1);
  if (generation == 0)
    time.in(random.between(0.05, 0.3), [this] { measure(0); });
  else if (last_step_ > 0 && group.step >= last_step_)
    time.in(random.between(0.01, 0.1), [this, generation] { end_group(generation); });
  else
    next_step(generation);
}

void World::measure(int generation) {
  if (groups_[generation].broken) return;
  for (const auto& agent : agents)
    if (agent->generation() == generation) agent->measured(agent->serial());
}

/// It began after the last step.
void World::end_group(int generation) {
  if (groups_[generation].broken) return;
  for (const auto& agent : agents)
    if (agent->generation() == generation) agent->finish(agent->serial());
}

void World::next_step(int generation) {
  const double least = scenario.num_nodes > 200 ? 0.5 : 0.1;
  time.in(random.between(least, 5 * least), [this, generation] { complete_step(generation); });
}

void World::complete_step(int generation) {
  Group& group = groups_[generation];
  if (group.broken) return;
  highest_step_ = std::max(highest_step_, ++group.step);
  const bool last = group.stop || (last_step_ > 0 && group.step >= last_step_);
  const bool saves = scenario.save_every > 0 && (group.save || last || group.step % scenario.save_every == 0);
  group.save = false;
  for (const auto& agent : agents)
    if (agent->generation() == generation) agent->step_taken(group.step, saves, last);
  if (!last) next_step(generation);
}

void World::group_saves(int generation, bool stop) {
  groups_[generation].save = true;
  groups_[generation].stop = groups_[generation].stop || stop;
}

void World::group_broken(int generation, bool peers_see_it) {
  Group& group = groups_[generation];
  const bool first = !std::exchange(group.broken, true);
  if (!peers_see_it || std::exchange(group.peers_saw, true)) return;
  if (first && group.addressed < group.world_size) return;  // nobody speaks to a peer yet
  lose_peers(generation, 0.02, random.chance(0.8) ? 0.3 : 2.5);
}

void World::lose_peers(int generation, double soonest, double latest) {
  for (const auto& agent : agents) {
    if (agent->generation() != generation || agent->stopping()) continue;
    time.in(random.between(soonest, latest), [&agent, serial = agent->serial()] { agent->peers_lost(serial); });
  }
}

void World::lose_state(int generation) {
  groups_[generation].broken = true;
  for (const auto& agent : agents) {
    if (agent->generation() != generation || agent->stopping()) continue;
    time.in(random.between(0.01, 0.1), [&agent, serial = agent->serial()] { agent->state_lost(serial); });
  }
}

void World::training_began() {
  if (std::exchange(faults_planned_, true)) return;
  plan_next_fault();
}

void World::plan_next_fault() {
  if (next_fault_ == scenario.faults.size()) {
    last_step_ = highest_step_ + kStepsAfter;
    return;
  }
  const Fault& fault = scenario.faults[next_fault_++];
  time.in(fault.after_seconds, [this, &fault] {
    if (!done_ && strike(fault)) {
      ++result.struck[static_cast<std::size_t>(fault.kind)];
      ++result.num_struck;
      progressed();
      if (tell) tell("fault: " + std::string(to_text(fault.kind)));
    }
    plan_next_fault();
  });
}

SimulatedAgent* World::any_agent(std::uint64_t choice, bool with_ranks) {
  for (std::size_t i = 0; i < agents.size(); ++i) {
    SimulatedAgent* agent = agents[(choice + i) % agents.size()].get();
    if (agent->alive() && (!with_ranks || (agent->generation() >= 0 && !agent->stopping()))) return agent;
  }
  return nullptr;
}

bool World::strike(const Fault& fault) {
  switch (fault.kind) {
    case FaultKind::RankKilled:
    case FaultKind::RankFails:
    case FaultKind::RankLosesPeer:
    case FaultKind::RankHangs:
    case FaultKind::RankOutlivesKill: return strike_rank(fault);
    case FaultKind::KeptRankEnds: return strike_kept_rank(fault);
    case FaultKind::NodeLost:
    case FaultKind::AgentSilent:
    case FaultKind::ConnectionBreaks:
    case FaultKind::SaveFails:
    case FaultKind::SpawnFails:
    case FaultKind::LateReport:
    case FaultKind::LateJoiner: return strike_agent(fault);
    case FaultKind::CoordinatorKilled:
    case FaultKind::CoordinatorPauses:
    case FaultKind::StopRequested: return strike_coordinator(fault);
    case FaultKind::PublicationFails:
    case FaultKind::NewestDamaged:
    case FaultKind::PlanFails: return strike_disk(fault);
  }
  return false;
}

bool World::strike_rank(const Fault& fault) {
  constexpr std::array<const char*, 5> kCauses{"signal 9", "signal 11", "signal 6", "exit 3", "out of memory"};
  SimulatedAgent* agent = any_agent(fault.choice, true);
  if (agent == nullptr) return false;
  const std::size_t rank = (fault.choice >> 20U) % agent->ranks().size();
  if (!agent->ranks()[rank].alive || agent->ranks()[rank].hung) return false;
  switch (fault.kind) {
    case FaultKind::RankKilled: agent->kill_rank(rank, kCauses[(fault.choice >> 40U) % kCauses.size()]); break;
    case FaultKind::RankFails: agent->fail_rank(rank); break;
    case FaultKind::RankLosesPeer: agent->lose_peer(rank); break;
    case FaultKind::RankHangs: agent->hang_rank(rank, kHangSeconds); break;
    default: {
      const double seconds = choose_between(fault.choice, 0.5, 14);
      if (seconds > kTooLongToDie) excuse();
      agent->outlive_kill(rank, seconds);
    }
  }
  return true;
}

bool World::strike_kept_rank(const Fault& fault) {
  for (std::size_t i = 0; i < agents.size(); ++i) {
    if (!agents[(fault.choice + i) % agents.size()]->end_kept_rank(fault.choice >> 20U)) continue;
    kept_rank_ended_ = true;
    return true;
  }
  return false;
}

bool World::strike_agent(const Fault& fault) {
  const bool with_ranks = fault.kind == FaultKind::LateReport;
  SimulatedAgent* agent = any_agent(fault.choice, with_ranks);
  if (agent == nullptr) return false;
  switch (fault.kind) {
    case FaultKind::NodeLost: {
      const auto left = std::count_if(agents.begin(), agents.end(), [](const auto& a) { return a->alive(); });
      if (left == 1 && fault.choice % 8 != 0) return false;
      agent->lose((fault.choice >> 20U) % 2 == 0);
      break;
    }
    case FaultKind::AgentSilent:
      agent->cut((fault.choice >> 20U) % 3 == 0 ? choose_between(fault.choice, 2.5, 8)
                                                : choose_between(fault.choice, 0.1, 1));
      break;
    case FaultKind::ConnectionBreaks:
      if (!agent->connected()) return false;
      agent->break_connection();
      break;
    case FaultKind::SaveFails: agent->fail_save(); break;
    case FaultKind::SpawnFails: agent->fail_spawn(); break;
    case FaultKind::LateReport:
      if (agent->generation() < 2) return false;
      agent->report_late(fault.choice >> 20U);
      break;
    default: {
      if (invariants.generation() == 0) return false;
      const int index = scenario.num_nodes + static_cast<int>(visitors.size());
      visitors.push_back(std::make_unique<SimulatedAgent>(*this, index, 0));
      visitors.back()->connect();
    }
  }
  return true;
}

bool World::strike_coordinator(const Fault& fault) {
  if (!coordinator_ || coordinator_->dead()) return false;
  switch (fault.kind) {
    case FaultKind::CoordinatorPauses: coordinator_->pause(choose_between(fault.choice, 0.3, 2.9)); break;
    case FaultKind::StopRequested:
      excuse();
      coordinator_->stop(15);
      break;
    default:
      coordinator_->kill(static_cast<Moment>((fault.choice >> 20U) % 5), static_cast<int>((fault.choice >> 30U) % 12));
  }
  return true;
}

bool World::strike_disk(const Fault& fault) {
  switch (fault.kind) {
    case FaultKind::PublicationFails: publication_fails_ = true; break;
    case FaultKind::PlanFails: plan_fails_ = true; break;
    default:
      if (disk.checkpoints.empty()) return false;
      disk.checkpoints.back().damaged = true;
  }
  return true;
}

WorldResult run_scenario(const Scenario& scenario, Planted planted) { return World(scenario, planted).run(); }

}  // namespace coxswain::bench
