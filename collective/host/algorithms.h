#pragma once
// Collectives as message passing over a Transport, for ranks that do not all share memory. Steps and bytes are those of
// collective/algorithm.h. Threads: the caller's. Source: docs/cost_model.md, C7-C10.
#include <cstddef>
#include <span>
#include <vector>

#include "collective/host/reduce.h"
#include "collective/host/transport.h"

namespace coxswain::collective {

/// Working memory that is kept from one operation to the next.
class Scratch {
 public:
  /// The first `bytes` of piece `index`; contents undefined.
  [[nodiscard]] std::span<std::byte> piece(std::size_t index, std::size_t bytes) {
    if (pieces_.size() <= index) pieces_.resize(index + 1);
    if (pieces_[index].size() < bytes) pieces_[index].resize(bytes);
    return {pieces_[index].data(), bytes};
  }

 private:
  std::vector<std::vector<std::byte>> pieces_;
};

/// Byte ranges by rank inside one buffer, in order and without gaps.
struct Layout {
  std::vector<std::size_t> begins;  // one more than ranks

  [[nodiscard]] static Layout equal_slices(std::size_t bytes, int num_ranks);
  [[nodiscard]] static Layout of_counts(const std::vector<std::int64_t>& counts, std::size_t element_bytes);
  [[nodiscard]] std::size_t bytes() const { return begins.back(); }
  [[nodiscard]] std::size_t bytes_of(int rank) const {
    return begins[static_cast<std::size_t>(rank) + 1] - begins[static_cast<std::size_t>(rank)];
  }
  template <class Byte>
  [[nodiscard]] std::span<Byte> of(std::span<Byte> whole, int rank) const {
    return whole.subspan(begins[static_cast<std::size_t>(rank)], bytes_of(rank));
  }
};

using Data = std::span<std::byte>;
using ConstData = std::span<const std::byte>;

/// All three: each element is summed by one rank alone and its bits are copied to the others, so that every rank ends
/// with the same bits. Ring: of slice s by rank s. Halving: partners keep different halves, so that of the ranks that
/// halve one keeps an element at last. Tree: by rank 0. (SharedStage: by the rank of the slice; a small buffer by every
/// rank, in the order of ranks.)
Result<void> ring_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch, Deadline deadline);
Result<void> halving_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch, Deadline deadline);
Result<void> tree_all_reduce(Transport& transport, Data data, Reducer& reducer, Scratch& scratch, Deadline deadline);

/// `output` holds this rank's piece already.
Result<void> ring_all_gather(Transport& transport, Data output, const Layout& layout, Deadline deadline);
Result<void> direct_all_gather(Transport& transport, Data output, const Layout& layout, Deadline deadline);

/// `input` stays as it is.
Result<void> ring_reduce_scatter(Transport& transport, ConstData input, Data output, const Layout& layout,
                                 Reducer& reducer, Scratch& scratch, Deadline deadline);
/// Sums in rank order.
Result<void> direct_reduce_scatter(Transport& transport, ConstData input, Data output, const Layout& layout,
                                   Reducer& reducer, Scratch& scratch, Deadline deadline);

Result<void> direct_all_to_all(Transport& transport, ConstData input, const Layout& sends, Data output,
                               const Layout& receives, Deadline deadline);
Result<void> tree_broadcast(Transport& transport, Data data, int root, Deadline deadline);
/// Every rank hears, directly or not, from every other in ceil(log2 ranks) rounds.
Result<void> tree_barrier(Transport& transport, Deadline deadline);

}  // namespace coxswain::collective
