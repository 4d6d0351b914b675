#pragma once
// What happens to a simulated run, as data that a seed stands for: its size and its faults, one after the other.
// Called by coordinator_world, coordinator_simulation and tests. Threads: pure. Source: issue 6, row k.
#include <cstdint>
#include <string_view>
#include <vector>

namespace coxswain::bench {

enum class FaultKind {
  RankKilled,         // a process is gone, by a signal
  RankFails,          // by itself: says why, then ends
  RankLosesPeer,      // says only that; there is no cause
  RankHangs,          // computes no more; it says so itself after its time limit
  RankOutlivesKill,   // a process that SIGKILL ends seconds later
  KeptRankEnds,       // between two generations: what it held of the last step is gone with it
  NodeLost,           // agent and ranks; its connection closes, or falls silent
  AgentSilent,        // its network is cut for a while
  ConnectionBreaks,   // between agent and coordinator
  CoordinatorKilled,  // between two events, before or after it wrote them down, in the middle of acting on one
  CoordinatorPauses,  // gets no processor for a while
  SaveFails,          // a rank cannot write its shard
  PublicationFails,   // of a checkpoint whose shards are there
  NewestDamaged,      // the newest checkpoint on the disk
  PlanFails,          // the next search for a plan
  SpawnFails,         // the next generation on one node
  LateReport,         // of a rank of an older generation
  LateJoiner,         // an agent that this run has no room for
  StopRequested,      // by a signal to the run
};
inline constexpr int kNumFaultKinds = 19;
[[nodiscard]] std::string_view to_text(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::RankKilled;
  double after_seconds = 0;  // since the fault before, or since training began
  std::uint64_t choice = 0;  // whom it strikes, and how
};

struct Scenario {
  std::uint64_t seed = 1;
  int num_nodes = 2, devices_per_node = 1;
  std::int64_t save_every = 4;  // steps; 0: no checkpoints
  bool measures = true;         // before training
  bool early = false;           // faults begin at once, not with training
  int steps_kept = 400;         // reports of steps in the journal, until they give way (StepsTaken)
  std::vector<Fault> faults;
};

/// The scenario of a seed. `num_nodes`: 0: 2 to 100, small ones more often (16 on the mean).
[[nodiscard]] Scenario make_scenario(std::uint64_t seed, int num_nodes);

}  // namespace coxswain::bench
