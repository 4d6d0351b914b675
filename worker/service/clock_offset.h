#pragma once
// How far this rank's steady clock is ahead of rank 0's, so that times of several nodes can stand on one axis. Ranks of
// one node share one clock. Source: Cristian, Probabilistic clock synchronization, 1989: the answer with the shortest
// round trip says it best, and is off by half of that at most. Threads: one; every rank calls it together.
#include <cstdint>
#include <string>
#include <vector>

#include "collective/communicator.h"
#include "common/clock.h"

namespace coxswain::worker {

struct ClockOffset {
  std::int64_t offset_nanoseconds = 0;  // this clock minus rank 0's
  std::int64_t error_nanoseconds = 0;   // at most
};

/// Since the clock's own beginning.
[[nodiscard]] std::int64_t nanoseconds_of(TimePoint time);

/// `nodes[r]`: the node of rank r. Sends nothing where all are on one node.
/// Errors: of the communicator.
[[nodiscard]] Result<ClockOffset> measure_clock_offset(collective::Communicator& world,
                                                       const std::vector<std::string>& nodes, const Clock& clock,
                                                       Deadline deadline);

}  // namespace coxswain::worker
