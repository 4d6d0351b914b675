#include "collective/algorithm.h"

#include <algorithm>
#include <bit>

#include "common/ensure.h"

namespace coxswain::collective {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

Bytes round_up(Bytes bytes) { return Bytes(divide_up(bytes.value, kSliceUnit.value) * kSliceUnit.value); }

int num_rounds(Bytes payload, Bytes chunk) { return static_cast<int>(divide_up(payload.value, chunk.value)); }

/// Rounds of a binomial tree: the smallest L with 2^L >= ranks.
int tree_depth(int num_ranks) { return std::bit_width(static_cast<unsigned>(num_ranks - 1)); }

bool is_power_of_two(int n) { return std::has_single_bit(static_cast<unsigned>(n)); }

// C6. Every round costs its synchronisations; a rank writes each byte of its payload once (slices of the others, then
// the sum of its own slice) and passes its slice of every other rank through an add.
AlgorithmCost shared_all_reduce(Bytes payload, int num_ranks) {
  if (payload <= kSharedSmall) return {1, payload, payload * (num_ranks - 1)};
  AlgorithmCost cost{1 + 2 * num_rounds(payload, kSharedChunk), payload, Bytes(0)};
  for (Bytes done{0}; done < payload; done += kSharedChunk) {
    cost.reduced_bytes += slice_of(std::min(kSharedChunk, payload - done), num_ranks, 0).bytes * (num_ranks - 1);
  }
  return cost;
}

AlgorithmCost shared_cost(CollectiveKind kind, Bytes payload, int num_ranks) {
  const Bytes slice = slice_of(payload, num_ranks, 0).bytes;
  switch (kind) {
    case CollectiveKind::AllReduce: return shared_all_reduce(payload, num_ranks);
    case CollectiveKind::AllGather: return {num_rounds(slice, kSharedChunk), slice, Bytes(0)};
    case CollectiveKind::ReduceScatter:
      // The rank with the shortest slice sends most, the one with the longest adds most.
      return {num_rounds(slice, shared_scatter_chunk(num_ranks)),
              payload - slice_of(payload, num_ranks, num_ranks - 1).bytes, slice * (num_ranks - 1)};
    case CollectiveKind::Broadcast: return {num_rounds(payload, kSharedChunk), payload, Bytes(0)};
    case CollectiveKind::Barrier: return {1, Bytes(0), Bytes(0)};
    default: break;
  }
  COX_ENSURE(false, "no such algorithm through shared memory");
  return {};
}

// C7. Around the ring a rank sends every slice but its own while reducing and every slice but its neighbour's while
// gathering; the two shortest slices are the last ones.
AlgorithmCost ring_cost(CollectiveKind kind, Bytes payload, int num_ranks) {
  const Bytes last = slice_of(payload, num_ranks, num_ranks - 1).bytes;
  const Bytes last_but_one = slice_of(payload, num_ranks, num_ranks - 2).bytes;
  switch (kind) {
    case CollectiveKind::AllReduce: return {2 * (num_ranks - 1), payload * 2 - last - last_but_one, payload - last};
    case CollectiveKind::AllGather: return {num_ranks - 1, payload - last, Bytes(0)};
    case CollectiveKind::ReduceScatter: return {num_ranks - 1, payload - last, payload - last};
    default: break;
  }
  COX_ENSURE(false, "no such algorithm around a ring");
  return {};
}

// C8. Halving: swap halves with a partner and keep one, then quarters, ...; gathering undoes it. Rank 0 keeps the
// longer part each time and is the busiest. Ranks beyond a power of two hand their data to a partner first.
AlgorithmCost halving_cost(Bytes payload, int num_ranks) {
  const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(num_ranks)));
  AlgorithmCost cost;
  Bytes kept = payload;
  for (int step = 1; step < power; step *= 2) {
    const Bytes half = std::min(kept, round_up(Bytes(divide_up(kept.value, 2))));
    cost.num_steps += 2;
    cost.sent_bytes += (kept - half) + half;
    cost.reduced_bytes += half;
    kept = half;
  }
  if (power != num_ranks) {
    cost.num_steps += 2;
    cost.sent_bytes += payload;
    cost.reduced_bytes += payload;
  }
  return cost;
}

// C9. The root of a binomial tree talks to one child per round.
AlgorithmCost tree_cost(CollectiveKind kind, Bytes payload, int num_ranks) {
  const int depth = tree_depth(num_ranks);
  switch (kind) {
    case CollectiveKind::AllReduce: return {2 * depth, payload * depth, payload * depth};
    case CollectiveKind::Broadcast: return {depth, payload * depth, Bytes(0)};
    case CollectiveKind::Barrier: return {depth, Bytes(depth), Bytes(0)};
    default: break;
  }
  COX_ENSURE(false, "no such algorithm over a tree");
  return {};
}

// C10. Everything to its receiver at once.
AlgorithmCost direct_cost(CollectiveKind kind, Bytes payload, int num_ranks) {
  const Bytes slice = slice_of(payload, num_ranks, 0).bytes;
  const Bytes last = slice_of(payload, num_ranks, num_ranks - 1).bytes;
  switch (kind) {
    case CollectiveKind::AllGather: return {1, slice * (num_ranks - 1), Bytes(0)};
    case CollectiveKind::ReduceScatter: return {1, payload - last, slice * (num_ranks - 1)};
    case CollectiveKind::AllToAll: return {1, payload - last, Bytes(0)};
    case CollectiveKind::SendReceive: return {1, payload, Bytes(0)};
    default: break;
  }
  COX_ENSURE(false, "no such direct algorithm");
  return {};
}

}  // namespace

Slice slice_of(Bytes payload, int num_slices, int index) {
  const Bytes full = round_up(Bytes(divide_up(payload.value, num_slices)));
  const Bytes begin = std::min(payload, full * static_cast<std::int64_t>(index));
  return {begin, std::min(full, payload - begin)};
}

Bytes shared_scatter_chunk(int num_ranks) {
  return std::max(kSliceUnit, kSharedChunk / num_ranks / kSliceUnit.value * kSliceUnit.value);
}

std::string_view to_text(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::SharedMemory: return "shared_memory";
    case Algorithm::Ring: return "ring";
    case Algorithm::RecursiveHalving: return "recursive_halving";
    case Algorithm::Tree: return "tree";
    case Algorithm::Direct: return "direct";
  }
  return "";
}

Algorithm choose_algorithm(CollectiveKind kind, Bytes payload, int num_ranks, bool one_node) {
  const bool small = payload <= kLatencyBound;
  switch (kind) {
    case CollectiveKind::AllReduce:
      if (one_node) return Algorithm::SharedMemory;
      // Halving takes the ring's bytes in fewer steps, and its big first swap stays between neighbours.
      if (is_power_of_two(num_ranks)) return Algorithm::RecursiveHalving;
      return small ? Algorithm::Tree : Algorithm::Ring;
    case CollectiveKind::AllGather:
    case CollectiveKind::ReduceScatter:
      if (one_node) return Algorithm::SharedMemory;
      return small ? Algorithm::Direct : Algorithm::Ring;
    case CollectiveKind::Broadcast:
    case CollectiveKind::Barrier: return one_node ? Algorithm::SharedMemory : Algorithm::Tree;
    case CollectiveKind::AllToAll:
    case CollectiveKind::SendReceive: break;
  }
  return Algorithm::Direct;
}

AlgorithmCost cost_of(CollectiveKind kind, Algorithm algorithm, Bytes payload, int num_ranks) {
  if (kind == CollectiveKind::SendReceive) return direct_cost(kind, payload, 2);
  if (num_ranks < 2) return {};
  if (payload.value == 0 && kind != CollectiveKind::Barrier) return {};
  switch (algorithm) {
    case Algorithm::SharedMemory: return shared_cost(kind, payload, num_ranks);
    case Algorithm::Ring: return ring_cost(kind, payload, num_ranks);
    case Algorithm::RecursiveHalving:
      COX_ENSURE(kind == CollectiveKind::AllReduce, "only an all-reduce halves");
      return halving_cost(payload, num_ranks);
    case Algorithm::Tree: return tree_cost(kind, payload, num_ranks);
    case Algorithm::Direct: return direct_cost(kind, payload, num_ranks);
  }
  return {};
}

}  // namespace coxswain::collective
