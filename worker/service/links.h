#pragma once
// Latency and bandwidth between ranks, measured through the communicator that training will use: for each node one pair
// of its ranks, for each two nodes one pair across. Threads: one; every rank calls it together.
// Latency is what a step of a collective costs ranks that compute before it and after it, as in training: a rank that
// has a share of a core waits for its turn, and for that of the last one.
#include <string>
#include <vector>

#include "collective/communicator.h"

namespace coxswain::worker {

struct LinkMeasurement {
  int from = 0, to = 0;
  Seconds latency{0};           // one way, a few bytes; at least what it costs ranks that are busy
  BytesPerSecond bandwidth{0};  // one direction, a large message
};

/// Pairs that are measured, in order. `nodes[r]`: the node of rank r.
[[nodiscard]] std::vector<std::pair<int, int>> link_pairs(const std::vector<std::string>& nodes);

/// The measurements that this rank made (it is `from` of them).
/// Errors: of the communicator.
[[nodiscard]] Result<std::vector<LinkMeasurement>> measure_links(collective::Communicator& world,
                                                                 const std::vector<std::string>& nodes,
                                                                 Deadline deadline);

}  // namespace coxswain::worker
