#pragma once
// The pure choice of algorithm by bytes and ranks, and the steps and bytes that each takes per rank; shared by the host
// backend (which runs it) and the cost model (which prices it). Threads: pure. Source: docs/cost_model.md, C6-C10.
#include <string_view>

#include "common/units.h"

namespace coxswain::collective {

enum class CollectiveKind { AllReduce, AllGather, ReduceScatter, AllToAll, Broadcast, SendReceive, Barrier };
enum class Algorithm { SharedMemory, Ring, RecursiveHalving, Tree, Direct };

/// What the busiest rank does: `num_steps` messages one after another (those that progress together are one),
/// `sent_bytes` in total over its link.
struct AlgorithmCost {
  int num_steps = 0;
  Bytes sent_bytes{0};
  Bytes reduced_bytes{0};  // bytes this rank passes through an add
};

/// Slices of one payload are whole cache lines, so that no two ranks write to the same one and no element is cut.
inline constexpr Bytes kSliceUnit{64};
/// Up to here every rank of a node reads all of everybody's data: one synchronisation instead of three.
inline constexpr Bytes kSharedSmall{16 * 1024};
/// Payload per round through shared memory: staging that stays in the cache (measured: bench/collectives).
inline constexpr Bytes kSharedChunk{1024 * 1024};
/// Up to here latency outweighs bandwidth between nodes: few steps instead of few bytes.
inline constexpr Bytes kLatencyBound{64 * 1024};

struct Slice {
  Bytes begin{0};
  Bytes bytes{0};

  friend bool operator==(const Slice&, const Slice&) = default;
};

/// Part `index` of `num_slices` contiguous parts of `payload`; the first ones are the longest, the last may be empty.
[[nodiscard]] Slice slice_of(Bytes payload, int num_slices, int index);
/// Bytes of each rank's slice that one round of a reduce-scatter through shared memory covers.
[[nodiscard]] Bytes shared_scatter_chunk(int num_ranks);

[[nodiscard]] std::string_view to_text(Algorithm algorithm);

/// `payload`: what one rank holds (all-reduce, broadcast), or the whole gathered or scattered buffer.
[[nodiscard]] Algorithm choose_algorithm(CollectiveKind kind, Bytes payload, int num_ranks, bool one_node);
/// Counts are taken as equal where they may vary.
/// Requires: an algorithm that `kind` has (COX_ENSURE).
[[nodiscard]] AlgorithmCost cost_of(CollectiveKind kind, Algorithm algorithm, Bytes payload, int num_ranks);

}  // namespace coxswain::collective
