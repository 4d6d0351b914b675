#pragma once
// All ranks of a plan in one thread and virtual time: a Compute and Communicators for executors, with rendezvous
// semantics and durations that a test chooses. Nothing waits; the clock jumps to the next completion. Threads: one.
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "executor/executor.h"
#include "tests/support/manual_clock.h"

namespace coxswain {

class VirtualWorld {
 public:
  /// Seconds of an action on a rank; of communication: after the last partner has come.
  using Duration = std::function<double(int rank, const plan::Action& action)>;

  VirtualWorld(const plan::Plan& plan, const model::ModelGraph& graph, Duration duration);
  ~VirtualWorld();

  /// Runs one step on every rank. False when no rank can go on (a deadlock).
  [[nodiscard]] bool run_step();
  [[nodiscard]] int num_ranks() const { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] const plan::RankProgram& program(int rank) const;
  [[nodiscard]] executor::Executor& executor(int rank);
  /// Time of the action with this text on `rank` in the last step.
  [[nodiscard]] executor::ActionTime time_of(int rank, const std::string& action) const;
  /// End of the last action of any rank.
  [[nodiscard]] double step_seconds() const;

 private:
  struct Rank;
  struct Operation;
  class Compute;
  class Communicator;
  class HandleState;
  friend class Compute;
  friend class Communicator;
  friend class HandleState;

  [[nodiscard]] double now() const;
  void settle(const std::shared_ptr<Operation>& operation, double partner_posted);
  [[nodiscard]] bool jump();

  const plan::Plan& plan_;
  std::vector<plan::Group> groups_;
  Duration duration_;
  ManualClock clock_;
  std::set<double> events_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::map<std::tuple<int, int>, std::vector<std::shared_ptr<Operation>>> collectives_;  // (group, turn)
  std::map<std::tuple<int, int, int, int>, std::shared_ptr<Operation>>
      transfers_;  // (group, from, to, turn): who came first
};

}  // namespace coxswain
