#pragma once
// Makes faults in a run that goes on, one after the other, and sees what comes of each: by which event the run goes on
// and how soon, whether the cause is named rightly, whether what is no failure is taken for one. Ends only processes
// that it started, found beneath its own `launch`. Called by disturbed_run. Threads: one.
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "bench/support/fault_kinds.h"
#include "bench/support/node_runs.h"
#include "common/clock.h"

namespace coxswain::bench {

struct FaultPlan {
  std::vector<FaultKind> kinds;  // each as often as the others, in an order out of the seed
  double pause_seconds = 0;      // mean, from one that is over to the next; or
  double every_seconds = 0;      // mean, from one to the next, where what it began is over by then; 0: by the pause
  bool nodes_return = false;     // every lost node starts again
};

/// What came of the faults of one run.
struct Disturbance {
  std::map<std::string, int> made;                     // by kind
  std::map<std::string, std::vector<double>> seconds;  // by kind, until the run went on
  std::map<std::string, int> judged, right;            // by kind, whether it was told as what it was
  std::vector<std::string> wrong;                      // those that were not, in words
  std::vector<double> used_again;                      // from a node's start to the generation that has it
  bool lost_nodes = false;
  std::set<int> killed_nodes;          // pids of their `launch`
  std::vector<std::string> intruders;  // names of others that were started
  std::optional<int> exit_code;        // of a run that has ended and was waited for
};

class Disturber {
 public:
  /// `deck`: kinds that are still to come, drawn from; kept from run to run.
  Disturber(const RunSettings& settings, const FaultPlan& plan, std::vector<FaultKind>& deck, std::mt19937_64& random,
            NodeRun& run);

  /// One fault, and the wait until the run goes on. False: the run has ended.
  bool disturb();
  [[nodiscard]] const Disturbance& result() const { return result_; }

 private:
  void wait_for_turn();
  const FaultKind& next_kind();
  bool make(const FaultKind& kind);
  bool fail(const FaultKind& kind);
  bool strike(Victim victim, Act act, int signal);
  [[nodiscard]] bool strike_process(Act act, int pid, int signal) const;
  bool lose_network(Act act);
  void end_lost_network();
  void return_node();
  void check_cause(const FaultKind& kind);
  void judge(const FaultKind& kind, bool right, const std::string& what);
  [[nodiscard]] bool await(const std::string& event, int before, const FaultKind& kind);
  void write_waits() const;
  [[nodiscard]] bool still_lives() const;
  [[nodiscard]] int living_node();

  // What is no failure of a rank or node.
  bool damage_checkpoint(Act act);
  bool fill_disk(const FaultKind& kind);
  bool slow_down(const FaultKind& kind);
  bool jump_clock(const FaultKind& kind);
  bool stop_run(const FaultKind& kind);
  bool intrude(const FaultKind& kind);
  bool steps_on(const FaultKind& kind, int failures, std::string so_far);

  const RunSettings& settings_;
  const FaultPlan& plan_;
  std::vector<FaultKind>& deck_;
  std::mt19937_64& random_;
  NodeRun& run_;
  Disturbance result_;
  TimePoint struck_;                // the last fault
  int cut_ = 0;                     // the node whose network is cut; 0: none
  int struck_rank_ = -1;            // -1: another process
  std::int64_t damaged_step_ = -1;  // of the checkpoint; -1: none
};

}  // namespace coxswain::bench
