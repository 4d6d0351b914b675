#pragma once
// The pure choice of algorithm by bytes and ranks, and the steps and bytes that each takes per rank; shared by the host
// backend (which runs it) and the cost model (which prices it). Threads: pure. Source: docs/cost_model.md, C6-C10.
#include "common/units.h"

namespace coxswain::collective {

enum class CollectiveKind { AllReduce, AllGather, ReduceScatter, AllToAll, Broadcast, SendReceive, Barrier };
enum class Algorithm { SharedMemory, Ring, RecursiveHalving, Tree, Direct };

/// What one rank does: `num_steps` messages one after another, `sent_bytes` in total over its link.
struct AlgorithmCost {
  int num_steps = 0;
  Bytes sent_bytes{0};
  Bytes reduced_bytes{0};  // bytes this rank passes through an add
};

/// `payload`: what one rank holds (all-reduce, broadcast), or the whole gathered or scattered buffer.
[[nodiscard]] Algorithm choose_algorithm(CollectiveKind kind, Bytes payload, int num_ranks, bool one_node);
[[nodiscard]] AlgorithmCost cost_of(CollectiveKind kind, Algorithm algorithm, Bytes payload, int num_ranks);

}  // namespace coxswain::collective
