#pragma once
// Runs one rank's program asynchronously over the seams Compute and Communicator: each stream keeps the plan's order,
// an action starts when what it waits for has finished. The worker runs it in real time, the simulator in virtual time.
// Threads: one thread drives an executor. Source: DESIGN 3.7.
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "collective/communicator.h"
#include "common/clock.h"
#include "common/result.h"
#include "plan/program.h"

namespace coxswain::executor {

/// What a communication action does on its group's communicator; buffers belong to the Compute until `finish`.
struct Communication {
  enum class Kind { None, AllReduce, Exchange, ReduceScatter, AllGather } kind = Kind::None;
  int group = -1;                 // index into make_groups
  collective::BufferView buffer;  // AllReduce; input of ReduceScatter and AllGather
  collective::BufferView output;  // ReduceScatter: this rank's piece; AllGather: the whole, which may hold `buffer`
  std::vector<std::int64_t> counts = {};  // of them: elements by rank of the group
  collective::ReduceOp op = collective::ReduceOp::Sum;
  std::vector<collective::PointToPoint> transfers;  // Exchange: peers are ranks in the group
};

/// Seam: the engine (libtorch) and, in virtual time, the simulator. Each action is an element of the program's list.
class Compute {
 public:
  virtual ~Compute() = default;
  /// Starts a compute action. On CPU it runs to its end before it returns.
  virtual Result<void> start(const plan::Action& action) = 0;
  /// Whether the compute action started last has finished. Errors are of that action. A Compute that goes on after
  /// `start` raises the step's CompletionSignal when it ends: run_step waits for that and does not poll.
  virtual Result<bool> finished() = 0;
  /// Buffers of a communication action that starts now (receive buffers are made here).
  virtual Result<Communication> prepare(const plan::Action& action) = 0;
  /// The communication of `action` is complete: its buffers may be used or dropped.
  virtual Result<void> finish(const plan::Action& action) = 0;
};

/// When an action ran, in seconds since the step began.
struct ActionTime {
  double start = 0, end = 0;
};

class Executor {
 public:
  /// `communicators[g]` belongs to group g of make_groups; null where this rank is no member. All are borrowed.
  Executor(const plan::RankProgram& program, Compute& compute, std::vector<collective::Communicator*> communicators,
           const Clock& clock);

  /// Ready for another step.
  void begin_step();
  /// Starts and finishes whatever can be; true when anything moved. Errors name the action; the step is then lost.
  Result<bool> advance(Deadline deadline);
  [[nodiscard]] bool done() const;
  /// begin_step, then advance until done, waiting on `signal` in between. Errors: as advance, DeadlineExceeded (names
  /// the pending actions).
  Result<void> run_step(collective::CompletionSignal& signal, Deadline deadline);
  /// run_step, on its thread: calls `told` with what is pending where nothing has ended for `patience` and nothing is
  /// computed, and with nothing once something has again. `patience` 0: never.
  void tell_stalls(Seconds patience, std::function<void(const std::string& pending)> told);
  /// Of the last step, by action index.
  [[nodiscard]] const std::vector<ActionTime>& times() const { return times_; }
  /// What those times count from, on this executor's clock.
  [[nodiscard]] TimePoint step_start() const { return step_start_; }
  /// Number of actions finished since construction, over all steps: progress for hang detection. Any thread.
  [[nodiscard]] std::int64_t progress() const;

 private:
  /// Whom the action in flight talks to, for errors.
  struct Partners {
    int group = -1;  // none
    bool exchanges = false;
    std::vector<int> peers;
    void take(const Communication& communication);
    [[nodiscard]] std::string text() const;
  };

  [[nodiscard]] double since_start() const;
  [[nodiscard]] Error at_action(Error error, int action, plan::Stream stream) const;
  [[nodiscard]] std::string pending() const;
  [[nodiscard]] Error overdue() const;
  void complete(int action, plan::Stream stream);
  Result<bool> poll(plan::Stream stream, Deadline deadline);
  Result<bool> start(plan::Stream stream, Deadline deadline);
  Result<void> communicate(const plan::Action& action, plan::Stream stream, Deadline deadline);

  const plan::RankProgram& program_;
  Compute& compute_;
  std::vector<collective::Communicator*> communicators_;
  const Clock& clock_;
  plan::StepState state_;
  std::vector<plan::Stream> streams_;  // that the program has, in the order in which they are looked at
  TimePoint step_start_{};
  std::vector<ActionTime> times_;
  std::vector<int> running_;                 // per stream
  std::vector<int> looked_;                  // per stream: how many had finished when nothing could start
  std::vector<collective::Handle> handles_;  // per stream
  std::vector<Partners> partners_;           // per stream
  std::atomic<std::int64_t> num_finished_{0};
  Seconds patience_{0};
  std::function<void(const std::string&)> told_;
};

}  // namespace coxswain::executor
