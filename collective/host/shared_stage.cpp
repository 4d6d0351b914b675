#include "collective/host/shared_stage.h"

#include <algorithm>
#include <cstring>

#include "collective/algorithm.h"

namespace coxswain::collective {
namespace {

constexpr auto kChunk = static_cast<std::size_t>(kSharedChunk.value);
constexpr auto kSmall = static_cast<std::size_t>(kSharedSmall.value);
// A sum is still in the second-level cache when it is copied to the other ranks' buffers.
constexpr std::size_t kRegisteredBlock = 64 * 1024;

void copy(std::byte* to, ConstData from) {
  if (!from.empty()) std::memcpy(to, from.data(), from.size());
}

/// The part of `whole` that round `round` covers.
template <class Span>
Span part(Span whole, std::size_t round, std::size_t chunk) {
  const std::size_t begin = std::min(whole.size(), round * chunk);
  return whole.subspan(begin, std::min(chunk, whole.size() - begin));
}

std::size_t num_rounds(std::size_t longest, std::size_t chunk) { return (longest + chunk - 1) / chunk; }

std::size_t longest_of(const Layout& layout, int num_ranks) {
  std::size_t longest = 0;
  for (int rank = 0; rank < num_ranks; ++rank) longest = std::max(longest, layout.bytes_of(rank));
  return longest;
}

}  // namespace

std::byte* SharedStage::slot_of(int rank) const {
  const Region& region = rank == group_.rank() ? group_.region() : group_.peer(rank).region;
  return region.stage(slot_);
}

void SharedStage::lay_out(std::size_t offset, ConstData piece) {
  copy(slot_of(group_.rank()) + offset, piece);
  traffic_.sent_bytes += static_cast<std::int64_t>(piece.size());
}

Result<void> SharedStage::synchronise(Deadline deadline) {
  ++traffic_.num_steps;
  ++arrivals_;
  group_.region().header().marks[arrivals_ % 2] = mark_;
  group_.region().header().arrivals.store(arrivals_, std::memory_order_release);
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (rank != group_.rank()) group_.peer(rank).bell.ring();
  }
  Waiter waiter(group_, deadline);
  for (int rank = 0; rank < group_.size();) {
    if (rank == group_.rank()) {
      ++rank;
      continue;
    }
    Peer& peer = group_.peer(rank);
    waiter.look();
    const bool left = peer.left.load(std::memory_order_acquire);
    if (peer.region.header().arrivals.load(std::memory_order_acquire) >= arrivals_) {
      const OperationMark& theirs = peer.region.header().marks[arrivals_ % 2];
      if (theirs != mark_)
        return mismatch(group_.world_ranks()[static_cast<std::size_t>(group_.rank())], mark_, peer.world_rank, theirs);
      ++rank;
      continue;
    }
    if (left) return group_.absent(peer);
    COX_TRY_VOID(waiter.pause({}, {&rank, 1}));
  }
  return {};
}

Result<void> SharedStage::all_reduce(Data data, Reducer& reducer, Deadline deadline) {
  if (data.empty()) return {};
  if (data.size() <= kSmall) return reduce_small(data, reducer, deadline);
  COX_TRY(const auto buffers, registered_buffers(data, deadline));
  if (buffers) return reduce_in_place(data, *buffers, reducer, deadline);
  for (std::size_t round = 0; round < num_rounds(data.size(), kChunk); ++round) {
    COX_TRY_VOID(reduce_chunk(part(data, round, kChunk), reducer, deadline));
  }
  return {};
}

/// Everybody lays out everything and adds it all: the same sum, in the same order, on every rank.
Result<void> SharedStage::reduce_small(Data data, Reducer& reducer, Deadline deadline) {
  next_round();
  lay_out(0, data);
  COX_TRY_VOID(synchronise(deadline));
  std::vector<const std::byte*> sources;
  for (int rank = 0; rank < group_.size(); ++rank) sources.push_back(slot_of(rank));
  reducer(data.data(), sources, data.size());
  return {};
}

Result<void> SharedStage::reduce_chunk(Data chunk, Reducer& reducer, Deadline deadline) {
  next_round();
  const int self = group_.rank();
  const Layout layout = Layout::equal_slices(chunk.size(), group_.size());
  const std::size_t begin = layout.begins[static_cast<std::size_t>(self)];
  const Data own = layout.of(chunk, self);
  lay_out(0, chunk.first(begin));
  lay_out(begin + own.size(), chunk.subspan(begin + own.size()));
  COX_TRY_VOID(synchronise(deadline));

  std::vector<const std::byte*> sources;
  for (int rank = 0; rank < group_.size(); ++rank) sources.push_back(rank == self ? own.data() : slot_of(rank) + begin);
  reducer(own.data(), sources, own.size());
  lay_out(begin, own);
  COX_TRY_VOID(synchronise(deadline));

  for (int rank = 0; rank < group_.size(); ++rank) {
    if (rank == self) continue;
    const Data theirs = layout.of(chunk, rank);
    copy(theirs.data(), {slot_of(rank) + layout.begins[static_cast<std::size_t>(rank)], theirs.size()});
  }
  return {};
}

Result<void> SharedStage::announce(Data data) {
  RegionHeader& header = group_.region().header();
  header.registered_id = 0;
  const auto place = registered_->find(data.data(), data.size());
  if (!place) return {};
  if (std::find(announced_.begin(), announced_.end(), place->id) == announced_.end()) {
    COX_TRY_VOID(group_.share_memory(place->id, *place->fd, place->whole_bytes));
    announced_.push_back(place->id);
  }
  header.registered_id = place->id;
  header.registered_offset = place->offset;
  return {};
}

Result<std::optional<std::vector<std::byte*>>> SharedStage::registered_buffers(Data data, Deadline deadline) {
  COX_TRY_VOID(announce(data));
  COX_TRY_VOID(synchronise(deadline));
  const auto header_of = [&](int rank) -> const RegionHeader& {
    return rank == group_.rank() ? group_.region().header() : group_.peer(rank).region.header();
  };
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (header_of(rank).registered_id == 0) return std::optional<std::vector<std::byte*>>{};
  }
  std::vector<std::byte*> buffers;
  Waiter waiter(group_, deadline);
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (rank == group_.rank()) {
      buffers.push_back(data.data());
      continue;
    }
    std::byte* memory = nullptr;
    while (true) {
      waiter.look();
      memory = group_.shared_memory(rank, header_of(rank).registered_id);
      if (memory != nullptr) break;
      // The descriptor is on its way over the control connection; the watcher rings when it is mapped.
      COX_TRY_VOID(waiter.pause({}, {&rank, 1}));
    }
    buffers.push_back(memory + header_of(rank).registered_offset);
  }
  return std::optional(std::move(buffers));
}

Result<void> SharedStage::reduce_in_place(Data data, const std::vector<std::byte*>& buffers, Reducer& reducer,
                                          Deadline deadline) {
  const Layout layout = Layout::equal_slices(data.size(), group_.size());
  const std::size_t begin = layout.begins[static_cast<std::size_t>(group_.rank())];
  const std::size_t end = begin + layout.bytes_of(group_.rank());
  std::vector<const std::byte*> sources(buffers.size());
  for (std::size_t at = begin; at < end; at += kRegisteredBlock) {
    const std::size_t bytes = std::min(kRegisteredBlock, end - at);
    for (std::size_t i = 0; i < buffers.size(); ++i) sources[i] = buffers[i] + at;
    reducer(data.data() + at, sources, bytes);
    for (std::byte* buffer : buffers) {
      if (buffer != data.data()) std::memcpy(buffer + at, data.data() + at, bytes);
    }
  }
  traffic_.sent_bytes += static_cast<std::int64_t>((end - begin) * (buffers.size() - 1));
  return synchronise(deadline);
}

Result<void> SharedStage::all_gather(Data output, const Layout& layout, Deadline deadline) {
  const int self = group_.rank();
  const std::size_t rounds = num_rounds(longest_of(layout, group_.size()), kChunk);
  for (std::size_t round = 0; round < rounds; ++round) {
    next_round();
    lay_out(0, part(layout.of(output, self), round, kChunk));
    COX_TRY_VOID(synchronise(deadline));
    for (int rank = 0; rank < group_.size(); ++rank) {
      if (rank == self) continue;
      const Data theirs = part(layout.of(output, rank), round, kChunk);
      copy(theirs.data(), {slot_of(rank), theirs.size()});
    }
  }
  return {};
}

Result<void> SharedStage::reduce_scatter(ConstData input, Data output, const Layout& layout, Reducer& reducer,
                                         Deadline deadline) {
  const int self = group_.rank();
  const auto chunk = static_cast<std::size_t>(shared_scatter_chunk(group_.size()).value);
  const std::size_t rounds = num_rounds(longest_of(layout, group_.size()), chunk);
  std::vector<const std::byte*> sources(static_cast<std::size_t>(group_.size()));
  for (std::size_t round = 0; round < rounds; ++round) {
    next_round();
    for (int rank = 0; rank < group_.size(); ++rank) {
      if (rank != self) lay_out(static_cast<std::size_t>(rank) * chunk, part(layout.of(input, rank), round, chunk));
    }
    COX_TRY_VOID(synchronise(deadline));
    const ConstData own = part(layout.of(input, self), round, chunk);
    for (int rank = 0; rank < group_.size(); ++rank) {
      sources[static_cast<std::size_t>(rank)] =
          rank == self ? own.data() : slot_of(rank) + static_cast<std::size_t>(self) * chunk;
    }
    reducer(part(output, round, chunk).data(), sources, own.size());
  }
  return {};
}

Result<void> SharedStage::broadcast(Data data, int root, Deadline deadline) {
  for (std::size_t round = 0; round < num_rounds(data.size(), kChunk); ++round) {
    next_round();
    const Data piece = part(data, round, kChunk);
    if (group_.rank() == root) lay_out(0, piece);
    COX_TRY_VOID(synchronise(deadline));
    if (group_.rank() != root) copy(piece.data(), {slot_of(root), piece.size()});
  }
  return {};
}

}  // namespace coxswain::collective
