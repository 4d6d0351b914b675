#pragma once
// The connected ranks of one communicator: what reaches each peer, why the communicator ended if it did, and the one
// way to wait. Every pair of ranks has a control connection (end of file without a farewell = the peer is lost); ranks
// of a node map each other's regions, others have a data connection. Threads: fail and farewell from any; control
// messages arrive on the watcher's thread; the rest on the progress thread. Source: DESIGN 3.6.
#include <poll.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collective/host/doorbell.h"
#include "collective/host/region.h"
#include "collective/host/watcher.h"
#include "common/clock.h"

namespace coxswain::collective {

/// What one rank tells another over the control connection.
struct ControlMessage {
  enum Kind : std::uint32_t { kFarewell = 1, kEnded = 2, kMemory = 3, kAsk = 4, kTell = 5 };
  std::uint32_t kind = 0;
  Notice notice;                                  // kEnded; kTell: what this rank is doing
  std::uint64_t memory_id = 0, memory_bytes = 0;  // kMemory: a descriptor comes with it
};

struct Peer {
  int rank = 0;
  int world_rank = 0;
  int local_index = -1;  // among the ranks of this node; -1 for others
  UniqueFd control;
  UniqueFd data;  // TCP only
  Region region;  // same node only
  UniqueFd event;
  Doorbell bell;
  std::atomic<bool> left{false};  // said farewell
  std::mutex sending;             // of control messages
  std::uint64_t watch = 0;
  // Of the watcher's thread: the control message that is coming in.
  ControlMessage incoming;
  std::size_t incoming_bytes = 0;
  std::vector<UniqueFd> incoming_descriptors;
};

/// What connecting leaves behind.
struct GroupParts {
  int rank = 0;
  std::vector<int> world_ranks;  // by rank; names in messages
  int local_index = 0;
  int num_local = 1;
  std::vector<std::unique_ptr<Peer>> peers;  // by rank; null for oneself
  Region region;                             // own; always there when size > 1
  UniqueFd event;
  std::shared_ptr<Watcher> watcher;
};

class Group {
 public:
  explicit Group(GroupParts parts);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] int rank() const { return parts_.rank; }
  [[nodiscard]] int size() const { return static_cast<int>(parts_.peers.size()); }
  [[nodiscard]] bool one_node() const { return parts_.num_local == size(); }
  [[nodiscard]] int local_index() const { return parts_.local_index; }
  [[nodiscard]] const std::vector<int>& world_ranks() const { return parts_.world_ranks; }
  [[nodiscard]] const std::shared_ptr<Watcher>& watcher() const { return parts_.watcher; }
  [[nodiscard]] Peer& peer(int rank) { return *parts_.peers[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] const Region& region() const { return parts_.region; }
  [[nodiscard]] const Doorbell& bell() const { return bell_; }

  /// Ends the communicator here and on every peer, for the first reason given. Any thread.
  void fail(Error error);
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  /// The reason. Requires: failed().
  [[nodiscard]] Error error() const;
  /// Tells the peers that this rank is done; call once, at a regular end.
  void farewell();
  /// Fails the communicator if a peer has ended it. Errors: that reason.
  Result<void> check();
  /// Error (and failure of the communicator) because `peer`, which is waited for, said farewell.
  [[nodiscard]] Error absent(const Peer& peer);

  /// What this rank is doing from now on; told to peers that ask. Any thread.
  void set_current(const OperationMark& mark);
  [[nodiscard]] OperationMark current() const;
  /// "rank 0: all_reduce of 100 float32, sum (collective 3); rank 1: no operation": this rank, then those that are
  /// waited for, then some that do something else; all are asked. Who does not answer within five seconds is silent.
  [[nodiscard]] std::string describe(std::span<const int> waited_for);

  /// Passes a descriptor of registered memory to every peer of the node. Errors: Unavailable.
  Result<void> share_memory(std::uint64_t id, const UniqueFd& fd, std::size_t bytes);
  /// A peer's registered memory once it has arrived, else null.
  [[nodiscard]] std::byte* shared_memory(int rank, std::uint64_t id);

 private:
  void fail_as(Error error, Notice notice);
  void adopt(int from, const Notice& notice);
  bool read_control(Peer& peer);
  bool take_control(Peer& peer);
  bool send_control(Peer& peer, const ControlMessage& message, int descriptor = -1);

  GroupParts parts_;
  Doorbell bell_;
  mutable std::mutex mutex_;
  std::atomic<bool> failed_{false};
  std::optional<Error> error_;
  std::map<std::pair<int, std::uint64_t>, Mapping> shared_memory_;
  OperationMark current_;
  std::map<int, std::string> answers_;  // by rank
};

/// One wait of the progress thread:
///   Waiter waiter(group, deadline);
///   while (true) { waiter.look(); if (ready) break; COX_TRY_VOID(waiter.pause(sockets)); }
class Waiter {
 public:
  Waiter(Group& group, Deadline deadline) : group_(group), deadline_(deadline) {}
  /// Before looking for work: whatever happens from now on ends the next pause.
  void look() { seen_ = group_.bell().seen(); }
  /// Something was done: spin anew before sleeping.
  void progress() { spins_ = 0; }
  /// `waited_for` names the ranks for the message of DeadlineExceeded.
  Result<void> pause(std::span<const pollfd> sockets, std::span<const int> waited_for);

 private:
  Group& group_;
  const Deadline deadline_;
  std::uint32_t seen_ = 0;
  int spins_ = 0;
};

}  // namespace coxswain::collective
