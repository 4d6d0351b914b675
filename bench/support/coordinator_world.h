#pragma once
// A whole run in simulated time: a coordinator made of the real Coordinator, AgentLines and journal inputs, killed and
// made again; agents that speak to it through the real Mailbox over connections that break; ranks that step together;
// a disk that outlives the coordinator. Faults of a script strike it, and invariants are looked at after every event.
// Called by bench/coordinator_simulation.cpp and tests/simulation. Threads: one a world; worlds share nothing.
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bench/support/coordinator_invariants.h"
#include "bench/support/fault_script.h"
#include "bench/support/simulated_agent.h"
#include "bench/support/simulated_network.h"
#include "bench/support/simulated_time.h"
#include "launcher/control/coordinator_input.h"
#include "proto/control.pb.h"

namespace coxswain::bench {

class SimulatedCoordinator;

/// A defect put in on purpose, which the invariants have to find.
enum class Planted { None, EndsTooEarly, ForgetsAnInput, RecordsTwice, LosesAnEvent };

/// How often agents and coordinator are heard: rarer than in a real run, still twice within a silence.
inline constexpr double kBeatSeconds = 0.8;

/// What a coordinator leaves behind when it is killed.
struct Disk {
  struct Entry {
    launcher::Input input;
    std::uint64_t decisions = 0;  // a hash of them
    bool decided = false;
  };
  struct Checkpoint {
    std::int64_t step = 0;
    bool damaged = false;
  };
  std::vector<Entry> journal;
  std::vector<std::string> events;  // lines of events.jsonl
  std::size_t rows = 0;             // lines of metrics.jsonl
  std::vector<Checkpoint> checkpoints;
};

/// Ranks of one generation, which step together.
struct Group {
  int world_size = 0, addressed = 0;
  std::int64_t step = 0;  // the last one
  bool broken = false, peers_saw = false, save = false, stop = false;
  bool from_memory = false;
  std::set<int> held;  // parameters that one of its ranks holds the state of
};

struct WorldResult {
  std::array<int, kNumFaultKinds> struck{};
  int num_struck = 0, coordinators = 0, generations = 0, nodes_lost = 0;
  std::int64_t steps = 0, inputs = 0;
  double seconds = 0;  // simulated
  ExitCode exit_code = ExitCode::Done;
  std::optional<std::string> broken;  // an invariant, in words
};

class World {
 public:
  explicit World(Scenario scenario, Planted planted = Planted::None);
  ~World();
  [[nodiscard]] WorldResult run();

  // For its parts.
  const Scenario scenario;
  const Planted planted;
  SimulatedTime time;
  SeededRandom random;
  Invariants invariants;
  Disk disk;
  std::vector<std::unique_ptr<SimulatedAgent>> agents, visitors;
  WorldResult result;
  /// Called with what happens, where somebody wants to read it.
  std::function<void(const std::string&)> tell;

  /// nullptr: nobody listens, or the agent's network is cut.
  std::shared_ptr<Connection> connect(SimulatedAgent& agent);
  /// nullptr: it is none. Until the next call.
  const coxswain::control::AgentCommand* parse_command(std::string body);
  [[nodiscard]] SimulatedAgent* find_agent(const std::string& id);

  void group_started(int generation, int world_size, std::int64_t after_step, bool from_memory);
  void group_holds(int generation, int parameter) { groups_[generation].held.insert(parameter); }
  /// Of the model; what a rank updates of them: in a third of the runs every rank all, in one two ranks the same, in
  /// one each something else.
  [[nodiscard]] int num_parameters() const;
  [[nodiscard]] std::vector<int> parameters_of(int rank, int world_size) const;
  void group_joined(int generation, int num_ranks);
  void group_broken(int generation, bool peers_see_it);
  void group_saves(int generation, bool stop);

  void coordinator_died();
  void coordinator_done(ExitCode exit_code);
  void training_began();
  void progressed() { progressed_at_ = time.now(); }
  bool take_publication_fault() { return std::exchange(publication_fails_, false); }
  bool take_plan_fault() { return std::exchange(plan_fails_, false); }
  /// A run that fails after this has a reason that it cannot help.
  void excuse() { excused_ = true; }

 private:
  void start_coordinator();
  void beat();
  void next_step(int generation);
  void complete_step(int generation);
  void measure(int generation);
  void end_group(int generation);
  void lose_peers(int generation, double soonest, double latest);
  void lose_state(int generation);
  void plan_next_fault();
  bool strike(const Fault& fault);
  bool strike_rank(const Fault& fault);
  bool strike_kept_rank(const Fault& fault);
  bool strike_agent(const Fault& fault);
  bool strike_coordinator(const Fault& fault);
  bool strike_disk(const Fault& fault);
  [[nodiscard]] SimulatedAgent* any_agent(std::uint64_t choice, bool with_ranks);
  void check_progress();
  void check_left(const SimulatedAgent& agent);
  void check_outcome(ExitCode exit_code);

  std::shared_ptr<SimulatedCoordinator> coordinator_;
  std::map<int, Group> groups_;
  std::map<int, TimePoint> lost_at_;  // by node
  coxswain::control::AgentCommand parsed_;
  std::string parsed_body_;
  std::size_t next_fault_ = 0;
  std::int64_t highest_step_ = 0, last_step_ = 0;  // taken so far; of the run, 0: not yet known
  bool faults_planned_ = false, publication_fails_ = false, plan_fails_ = false, excused_ = false, done_ = false,
       finished_ = false, kept_rank_ended_ = false;
  TimePoint progressed_at_{}, done_at_{};
};

/// Runs the scenario.
[[nodiscard]] WorldResult run_scenario(const Scenario& scenario, Planted planted = Planted::None);

}  // namespace coxswain::bench
