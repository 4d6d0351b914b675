#pragma once
// The Transport fake: messages between threads of one process, and a count of steps and bytes of what it carries.
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "collective/host/transport.h"

namespace coxswain::collective {

/// The mailboxes between all pairs of ranks.
class Mailboxes {
 public:
  void put(int from, int to, std::vector<std::byte> message) {
    const std::lock_guard lock(mutex_);
    messages_[{from, to}].push_back(std::move(message));
    arrived_.notify_all();
  }
  /// False when nothing arrived before the deadline.
  bool take(int from, int to, std::vector<std::byte>& message, Deadline deadline) {
    std::unique_lock lock(mutex_);
    auto& queue = messages_[{from, to}];
    if (!arrived_.wait_until(lock, deadline.at, [&] { return !queue.empty(); })) return false;
    message = std::move(queue.front());
    queue.pop_front();
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> messages_;
};

class MemoryTransport final : public Transport {
 public:
  MemoryTransport(Mailboxes& mailboxes, int rank, int size) : mailboxes_(mailboxes), rank_(rank), size_(size) {}
  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return size_; }

  Result<void> exchange(std::span<const Transfer> transfers, Deadline deadline) override {
    ++num_steps;
    for (const Transfer& transfer : transfers) {
      if (transfer.kind != Transfer::Kind::Send) continue;
      mailboxes_.put(rank_, transfer.peer, {transfer.data, transfer.data + transfer.bytes});
      if (transfer.peer != rank_) sent_bytes += static_cast<std::int64_t>(transfer.bytes);
    }
    for (const Transfer& transfer : transfers) {
      if (transfer.kind != Transfer::Kind::Receive) continue;
      std::vector<std::byte> message;
      if (!mailboxes_.take(transfer.peer, rank_, message, deadline))
        return Error{ErrorCode::DeadlineExceeded, "no message", "", "", "", ""};
      if (message.size() != transfer.bytes) return Error{ErrorCode::Internal, "sizes do not match", "", "", "", ""};
      if (!message.empty()) std::memcpy(transfer.data, message.data(), message.size());
    }
    return {};
  }

  int num_steps = 0;
  std::int64_t sent_bytes = 0;

 private:
  Mailboxes& mailboxes_;
  int rank_;
  int size_;
};

}  // namespace coxswain::collective
