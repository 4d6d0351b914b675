#pragma once
// The kinds of faults that benches make in real runs, as data: what is done to whom, by which event the run goes on,
// and what it has to name. Called by chaos and soak; Disturber makes them. Threads: pure.
#include <csignal>
#include <span>
#include <string>
#include <vector>

namespace coxswain::bench {

enum class Act {
  Signal,          // `signal` to the victim
  Exit,            // a rank ends by itself, with exit code 3
  Throw,           // a rank throws an exception where it computes
  LimitMemory,     // a rank may have no more memory than it has
  CutNetwork,      // nothing comes through to or from a node
  HalfOpen,        // a node is heard and hears nothing
  SlowRank,        // a rank has a fraction of its processor for some seconds
  SlowLink,        // a node's link has a fraction of its rate for some seconds
  FullDisk,        // a node's disk holds no more than it holds, until a checkpoint failed
  FlipCheckpoint,  // a bit of the newest checkpoint, then a rank is killed
  TearCheckpoint,  // the end of a file of the newest checkpoint, then a rank is killed
  JumpClock,       // a process finds another hour
  Stop,            // SIGTERM to the run, which is started again when it has ended
  TakenPort,       // another run wants the coordinator's port
  DuplicateAgent,  // another agent says that it is a node which is there
};
enum class Victim { None, Coordinator, Rank, Agent, Node };

struct FaultKind {
  const char* name;
  Act act = Act::Signal;
  Victim victim = Victim::None;
  int signal = 0;
  const char* sign = "recovered";  // event by which the run goes on; "": it steps on, and tells of no failure
  const char* cause = nullptr;     // the run names one of these, divided by '|', with the rank or the node
  Victim then = Victim::None;      // a second one, killed within 1.5 s of the first
  bool returns = false;            // the node starts again
  bool apart = false;              // only where nodes share neither network nor disk
};

[[nodiscard]] std::span<const FaultKind> all_fault_kinds();
/// A node is lost by it.
[[nodiscard]] bool loses_node(const FaultKind& kind);
/// Those of `names` ("all", or names divided by commas) that can be made with so many nodes. Exits 64 with the list on
/// an unknown name; says on stdout which ones are left out, and why.
[[nodiscard]] std::vector<FaultKind> fault_kinds_of(const std::string& names, int num_nodes, bool apart);

}  // namespace coxswain::bench
