#pragma once
// The real Transport: a ring in shared memory to every rank of this node, a TCP connection to every other.
// Threads: the progress thread.
#include <vector>

#include "collective/host/group.h"
#include "collective/host/transport.h"

namespace coxswain::collective {

class LinkTransport final : public Transport {
 public:
  explicit LinkTransport(Group& group) : group_(group), pairs_(static_cast<std::size_t>(group.size())) {}
  [[nodiscard]] int rank() const override { return group_.rank(); }
  [[nodiscard]] int size() const override { return group_.size(); }
  /// What the next exchanges are part of. Between two ranks the first message of a collective carries its mark, and
  /// every one of an exchange or an all_to_all a mark of its own, which the receiver compares with what it expects.
  void begin(const OperationMark& mark);
  /// Errors beside Transport's: FailedPrecondition naming two ranks whose marks differ.
  Result<void> exchange(std::span<const Transfer> transfers, Deadline deadline) override;

 private:
  /// The two directions of a pair.
  struct Pair {
    std::uint32_t sent = 0, received = 0;           // messages with marks of their own
    bool mark_sent = false, mark_received = false;  // in this collective
  };
  /// The transfers of one peer in one direction; they move one after another.
  struct Lane {
    Transfer::Kind kind = Transfer::Kind::Send;
    int peer = 0;
    std::vector<const Transfer*> transfers;
    std::size_t current = 0;
    std::size_t moved = 0;                   // bytes of the current one
    bool has_mark = false;                   // the current one's mark is known, and not yet over
    OperationMark mark = {}, arriving = {};  // ours; a receiver's from the sender
    std::size_t mark_bytes = 0;              // of it that have moved
    bool differs = false;                    // what arrived is not what was expected
    bool closed = false;                     // the data connection ended; the control connection will tell why

    [[nodiscard]] bool done() const { return current == transfers.size(); }
  };

  [[nodiscard]] Result<std::vector<Lane>> make_lanes(std::span<const Transfer> transfers) const;
  /// Moves what can be moved now; true when anything was.
  bool advance(Lane& lane);
  /// Whether the lane's current transfer begins with a mark, which is made here.
  void prepare_mark(Lane& lane);
  /// Of the mark first, then of [data, data + bytes); returns bytes of the latter.
  std::size_t move_some(Lane& lane, std::byte* data, std::size_t bytes, bool& any);
  std::size_t move_tcp(Lane& lane, std::byte* data, std::size_t bytes, bool& any);
  std::size_t send_to_ring(Peer& peer, const std::byte* data, std::size_t bytes, bool rings = true);
  std::size_t receive_from_ring(Peer& peer, std::byte* data, std::size_t bytes);
  Result<void> pause(const std::vector<Lane>& lanes, Waiter& waiter);

  Group& group_;
  OperationMark mark_;
  std::vector<Pair> pairs_;  // by rank
};

}  // namespace coxswain::collective
