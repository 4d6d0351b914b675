#include "collective/host/link_transport.h"

#include <algorithm>
#include <cstring>

#include "collective/host/algorithms.h"
#include "collective/host/socket.h"

namespace coxswain::collective {
namespace {

// The reader starts on a piece while the writer copies the next one.
constexpr std::size_t kPiece = 64 * 1024;
// Over TCP a lane moves this much and lets the others have their turn, so that data does not pile up in the kernel
// beyond what the caches hold.
constexpr std::size_t kTcpPiece = 256 * 1024;

Error unmatched() {
  return {ErrorCode::InvalidArgument, "a rank's sends to itself and receives from itself do not match", "", "", "", ""};
}

/// Pairs the i-th send to oneself with the i-th receive.
Result<void> copy_to_self(int rank, std::span<const Transfer> transfers) {
  std::vector<const Transfer*> sends;
  std::vector<const Transfer*> receives;
  for (const Transfer& transfer : transfers) {
    if (transfer.peer == rank) (transfer.kind == Transfer::Kind::Send ? sends : receives).push_back(&transfer);
  }
  if (sends.size() != receives.size()) return unmatched();
  for (std::size_t i = 0; i < sends.size(); ++i) {
    if (sends[i]->bytes != receives[i]->bytes) return unmatched();
    if (sends[i]->bytes > 0) std::memmove(receives[i]->data, sends[i]->data, sends[i]->bytes);
  }
  return {};
}

}  // namespace

void LinkTransport::begin(const OperationMark& mark) {
  mark_ = mark;
  for (Pair& pair : pairs_) pair.mark_sent = pair.mark_received = false;
}

Result<std::vector<LinkTransport::Lane>> LinkTransport::make_lanes(std::span<const Transfer> transfers) const {
  std::vector<Lane> lanes;
  for (const Transfer& transfer : transfers) {
    if (transfer.peer < 0 || transfer.peer >= size()) {
      return Error{ErrorCode::InvalidArgument,           "no such rank in this communicator", "",
                   "0 to " + std::to_string(size() - 1), std::to_string(transfer.peer),       ""};
    }
    if (transfer.peer == rank() || transfer.bytes == 0) continue;
    const auto same = [&](const Lane& lane) { return lane.peer == transfer.peer && lane.kind == transfer.kind; };
    auto lane = std::find_if(lanes.begin(), lanes.end(), same);
    if (lane == lanes.end()) lane = lanes.insert(lane, Lane{transfer.kind, transfer.peer, {}});
    lane->transfers.push_back(&transfer);
  }
  return lanes;
}

Result<void> LinkTransport::exchange(std::span<const Transfer> transfers, Deadline deadline) {
  COX_TRY(std::vector<Lane> lanes, make_lanes(transfers));
  COX_TRY_VOID(copy_to_self(rank(), transfers));
  if (lanes.empty()) return {};
  Waiter waiter(group_, deadline);
  while (true) {
    waiter.look();
    bool moved = false;
    bool done = true;
    for (Lane& lane : lanes) {
      if (lane.done()) continue;
      // Asked before moving: all that a rank of this node sent before its farewell is visible to this attempt. Over TCP
      // the farewell may overtake data, whose end is the end of that connection.
      Peer& peer = group_.peer(lane.peer);
      const bool left = peer.left.load(std::memory_order_acquire);
      const bool advanced = advance(lane);
      if (lane.differs)
        return mismatch(group_.world_ranks()[static_cast<std::size_t>(rank())], lane.mark, peer.world_rank,
                        lane.arriving);
      if (!advanced && left && !lane.done() && (peer.region || lane.closed)) return group_.absent(peer);
      moved |= advanced;
      done &= lane.done();
    }
    if (done) return {};
    if (moved) {
      waiter.progress();
      COX_TRY_VOID(group_.check());
      continue;
    }
    COX_TRY_VOID(pause(lanes, waiter));
  }
}

Result<void> LinkTransport::pause(const std::vector<Lane>& lanes, Waiter& waiter) {
  std::vector<pollfd> sockets;
  std::vector<int> waited_for;
  for (const Lane& lane : lanes) {
    if (lane.done()) continue;
    waited_for.push_back(lane.peer);
    const Peer& peer = group_.peer(lane.peer);
    if (!peer.data || lane.closed) continue;
    const short events = lane.kind == Transfer::Kind::Send ? POLLOUT : POLLIN;
    sockets.push_back({peer.data.value(), events, 0});
  }
  return waiter.pause(sockets, waited_for);
}

bool LinkTransport::advance(Lane& lane) {
  bool any = false;
  while (!lane.done()) {
    const Transfer& transfer = *lane.transfers[lane.current];
    if (lane.moved == 0 && !lane.has_mark) prepare_mark(lane);
    const std::size_t bytes = move_some(lane, transfer.data + lane.moved, transfer.bytes - lane.moved, any);
    if (bytes == 0 || lane.differs) return any;
    any = true;
    lane.moved += bytes;
    if (lane.moved < transfer.bytes && !group_.peer(lane.peer).region) return true;
    if (lane.moved < transfer.bytes) continue;
    lane.moved = 0;
    lane.has_mark = false;
    ++lane.current;
  }
  return any;
}

void LinkTransport::prepare_mark(Lane& lane) {
  lane.has_mark = true;
  lane.mark_bytes = 0;
  const bool sends = lane.kind == Transfer::Kind::Send;
  Pair& pair = pairs_[static_cast<std::size_t>(lane.peer)];
  if (mark_.is_of_messages()) {
    const Transfer& transfer = *lane.transfers[lane.current];
    const auto count =
        static_cast<std::uint64_t>(transfer.bytes) / static_cast<std::uint64_t>(size_of(transfer.dtype).value);
    lane.mark = OperationMark::message(transfer.dtype, count, sends ? ++pair.sent : ++pair.received);
    return;
  }
  bool& over = sends ? pair.mark_sent : pair.mark_received;
  lane.mark = mark_;
  if (over) lane.mark_bytes = sizeof(OperationMark);
  over = true;
}

std::size_t LinkTransport::move_some(Lane& lane, std::byte* data, std::size_t bytes, bool& any) {
  Peer& peer = group_.peer(lane.peer);
  if (!peer.region) return move_tcp(lane, data, bytes, any);
  const bool sends = lane.kind == Transfer::Kind::Send;
  std::byte* mark = reinterpret_cast<std::byte*>(sends ? &lane.mark : &lane.arriving);
  while (lane.mark_bytes < sizeof(OperationMark)) {
    const std::size_t left = sizeof(OperationMark) - lane.mark_bytes;
    // The data that follows rings for both.
    const std::size_t moved = sends ? send_to_ring(peer, mark + lane.mark_bytes, left, false)
                                    : receive_from_ring(peer, mark + lane.mark_bytes, left);
    if (moved == 0) return 0;
    any = true;
    lane.mark_bytes += moved;
    lane.differs = !sends && lane.mark_bytes == sizeof(OperationMark) && lane.arriving != lane.mark;
    if (lane.differs) return 0;
  }
  return sends ? send_to_ring(peer, data, bytes) : receive_from_ring(peer, data, bytes);
}

std::size_t LinkTransport::move_tcp(Lane& lane, std::byte* data, std::size_t bytes, bool& any) {
  if (lane.closed) return 0;
  const int socket = group_.peer(lane.peer).data.value();
  const bool sends = lane.kind == Transfer::Kind::Send;
  bytes = std::min(bytes, kTcpPiece);
  if (lane.mark_bytes == sizeof(OperationMark)) {
    const Moved moved = sends ? send_some(socket, {data, bytes}) : receive_some(socket, {data, bytes});
    lane.closed = moved.closed;
    return moved.bytes;
  }
  // One call moves both. What arrives beside a mark that differs is not looked at.
  const std::size_t left = sizeof(OperationMark) - lane.mark_bytes;
  const Data mark(reinterpret_cast<std::byte*>(sends ? &lane.mark : &lane.arriving) + lane.mark_bytes, left);
  const Moved moved = sends ? send_two(socket, mark, {data, bytes}) : receive_two(socket, mark, {data, bytes});
  lane.closed = moved.closed;
  any = any || moved.bytes > 0;
  const std::size_t of_mark = std::min(left, moved.bytes);
  lane.mark_bytes += of_mark;
  lane.differs = !sends && lane.mark_bytes == sizeof(OperationMark) && lane.arriving != lane.mark;
  return moved.bytes - of_mark;
}

// Both sides keep growing positions; the writer may be at most kRingBytes ahead of the reader.
std::size_t LinkTransport::send_to_ring(Peer& peer, const std::byte* data, std::size_t bytes, bool rings) {
  RingPositions& positions = peer.region.ring(group_.local_index());
  std::byte* ring = peer.region.ring_data(group_.local_index());
  const std::uint64_t written = positions.written.load(std::memory_order_relaxed);
  const std::uint64_t read = positions.read.load(std::memory_order_acquire);
  const std::size_t offset = written % kRingBytes;
  const std::size_t length =
      std::min({bytes, kRingBytes - static_cast<std::size_t>(written - read), kRingBytes - offset, kPiece});
  if (length == 0) return 0;
  std::memcpy(ring + offset, data, length);
  positions.written.store(written + length, std::memory_order_release);
  if (rings) peer.bell.ring();
  return length;
}

std::size_t LinkTransport::receive_from_ring(Peer& peer, std::byte* data, std::size_t bytes) {
  RingPositions& positions = group_.region().ring(peer.local_index);
  const std::byte* ring = group_.region().ring_data(peer.local_index);
  const std::uint64_t read = positions.read.load(std::memory_order_relaxed);
  const std::uint64_t written = positions.written.load(std::memory_order_acquire);
  const std::size_t offset = read % kRingBytes;
  const std::size_t length = std::min({bytes, static_cast<std::size_t>(written - read), kRingBytes - offset, kPiece});
  if (length == 0) return 0;
  std::memcpy(data, ring + offset, length);
  positions.read.store(read + length, std::memory_order_release);
  // A writer that sleeps has a full ring: wake it when half is free, and at the end of what there is.
  if ((read + length) % (kRingBytes / 2) < length || read + length == written) peer.bell.ring();
  return length;
}

}  // namespace coxswain::collective
