#pragma once
// What one round of heartbeats costs the coordinator's core while a large run trains: heartbeats to all agents, the
// receipt of theirs, and a tick. Called by coordinator_simulation. Threads: one.
#include <vector>

#include "common/units.h"

namespace coxswain::bench {

/// Of each of `num_rounds` rounds, with `num_nodes` agents of one device each.
[[nodiscard]] std::vector<Seconds> measure_heartbeat_rounds(int num_nodes, int num_rounds);

}  // namespace coxswain::bench
