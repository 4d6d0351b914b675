#pragma once
// One process of the coordinator in a simulated run: what coordinator_process.cpp does, with the real Coordinator and
// AgentLines, on a simulated disk and in simulated time. It is killed at any point and another one is made out of the
// journal; that has to decide what the first one decided, input by input. Called by coordinator_world. Threads: one.
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "bench/support/coordinator_world.h"
#include "launcher/control/agent_lines.h"
#include "launcher/control/coordinator.h"
#include "launcher/control/coordinator_input.h"

namespace coxswain::bench {

/// Where in its loop a coordinator dies.
enum class Moment { Now, BeforeJournal, AfterJournal, BetweenInputs, BetweenDecisions };

class SimulatedCoordinator final : public ConnectionEnd, public std::enable_shared_from_this<SimulatedCoordinator> {
 public:
  explicit SimulatedCoordinator(World& world);

  /// Makes itself anew out of the journal where there is one, then listens.
  void begin();
  std::shared_ptr<Connection> accept(SimulatedAgent& agent);
  void arrived(Connection& connection, std::string body) override;
  void ended(Connection& connection) override;

  void stop(int signal);
  void pause(double seconds);
  /// At the `countdown`-th chance of `moment`, or soon where none comes.
  void kill(Moment moment, int countdown);
  [[nodiscard]] bool dead() const { return dead_; }

 private:
  struct FromLine {
    int line = 0;
    std::string envelope;
  };
  struct LineEnded {
    int line = 0;
  };
  struct Told {
    launcher::InputKind kind = launcher::InputKind::Tick;
    std::string body;
  };
  using Happening = std::variant<FromLine, LineEnded, Told>;

  void restore();
  void push(Happening happening);
  void wake_in(double seconds);
  void wake();
  void take_events();
  std::vector<launcher::Input> inputs_of(Happening& happening);
  void drop_steps();
  void apply(std::size_t entry);
  std::vector<launcher::Decision> decide(const launcher::Input& input);
  std::vector<launcher::Decision> decide_plan(const launcher::Input& input);
  void compare(Disk::Entry& entry, const std::vector<launcher::Decision>& decisions);
  void carry_out(std::vector<launcher::Decision> decisions);
  void record(const Json& event);
  void record_step(const launcher::StepRow& row);
  void know_agent(const launcher::Input& input);
  void lose_agent(const launcher::Input& input);
  void begin_work();
  void begin_choosing();
  launcher::PlanRecord plan_on(const std::vector<char>& used);
  void calibrate_by_chance();
  void publish_next();
  void find_recovery();
  void later(double seconds, std::function<void()> act);
  void say_goodbye();
  bool dies(Moment moment);
  void die();
  void cut_all();

  World& world_;
  launcher::Coordinator core_;
  launcher::AgentLines lines_;
  std::map<int, std::shared_ptr<Connection>> open_;
  std::deque<Happening> events_;
  std::vector<launcher::Input> inputs_;
  std::deque<std::int64_t> to_publish_;
  std::map<int, SimulatedAgent*> known_;  // by the coordinator's number
  std::optional<launcher::FindCheckpoint> finding_;
  bool choosing_ = false, working_ = false, restored_ = false, ended_ = false, dead_ = false;
  bool replaying_ = false, compacted_ = false;
  std::size_t events_told_ = 0, rows_told_ = 0, num_events_ = 0, num_rows_ = 0;  // as launcher/control/run_output.h
  int step_reports_ = 0;
  ExitCode exit_code_ = ExitCode::Done;
  TimePoint paused_until_{}, wakes_at_ = TimePoint::max(), goodbye_by_{};
  launcher::Heartbeat heartbeat_;
  TimePoint join_by_;
  Moment moment_ = Moment::Now;
  int countdown_ = -1;  // -1: it is not to die
};

}  // namespace coxswain::bench
