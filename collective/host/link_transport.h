#pragma once
// The real Transport: a ring in shared memory to every rank of this node, a TCP connection to every other.
// Threads: the progress thread.
#include <vector>

#include "collective/host/group.h"
#include "collective/host/transport.h"

namespace coxswain::collective {

class LinkTransport final : public Transport {
 public:
  explicit LinkTransport(Group& group) : group_(group) {}
  [[nodiscard]] int rank() const override { return group_.rank(); }
  [[nodiscard]] int size() const override { return group_.size(); }
  Result<void> exchange(std::span<const Transfer> transfers, Deadline deadline) override;

 private:
  /// The transfers of one peer in one direction; they move one after another.
  struct Lane {
    Transfer::Kind kind = Transfer::Kind::Send;
    int peer = 0;
    std::vector<const Transfer*> transfers;
    std::size_t current = 0;
    std::size_t moved = 0;  // bytes of the current one
    bool closed = false;    // the data connection ended; the control connection will tell why

    [[nodiscard]] bool done() const { return current == transfers.size(); }
  };

  [[nodiscard]] Result<std::vector<Lane>> make_lanes(std::span<const Transfer> transfers) const;
  /// Moves what can be moved now; true when anything was.
  bool advance(Lane& lane);
  std::size_t move_some(Lane& lane, std::byte* data, std::size_t bytes);
  std::size_t send_to_ring(Peer& peer, const std::byte* data, std::size_t bytes);
  std::size_t receive_from_ring(Peer& peer, std::byte* data, std::size_t bytes);
  Result<void> pause(const std::vector<Lane>& lanes, Waiter& waiter);

  Group& group_;
};

}  // namespace coxswain::collective
