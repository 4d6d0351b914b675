#pragma once
// Fake of Communicator for ranks that are threads of one process: whoever comes last does the work, in rank order, so
// that every rank ends with the same bits. For tests of the engine. Threads: one rank each.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "collective/communicator.h"
#include "common/ensure.h"

namespace coxswain::tests {

/// What the ranks of one communicator share.
class ThreadGroup {
 public:
  explicit ThreadGroup(int size) : size_(size), signals_(size, nullptr), next_(size, 0) {}

  struct Operation final : collective::Handle::State {
    ThreadGroup* group = nullptr;
    int remaining = 1;
    [[nodiscard]] bool done() const override {
      const std::lock_guard lock(group->mutex_);
      return remaining == 0 || !group->reason_.empty();
    }
    Result<void> wait(Deadline deadline) override {
      std::unique_lock lock(group->mutex_);
      const bool finished =
          group->changed_.wait_until(lock, deadline.at, [&] { return remaining == 0 || !group->reason_.empty(); });
      if (remaining == 0) return {};
      if (finished) return Error{ErrorCode::Aborted, group->reason_, "", "", "", ""};
      return Error{ErrorCode::DeadlineExceeded, "no peer came", "", "", "", ""};
    }
  };

  std::shared_ptr<Operation> reduce(int rank, collective::BufferView buffer, int root) {
    const std::lock_guard lock(mutex_);
    auto operation = std::make_shared<Operation>();
    operation->group = this;
    Meeting& meeting = meetings_[next_[rank]++];
    meeting.buffers.resize(size_);
    meeting.buffers[rank] = buffer;
    meeting.operations.push_back(operation);
    if (static_cast<int>(meeting.operations.size()) == size_) {
      if (root >= 0) {
        for (auto& target : meeting.buffers)
          if (target.data != meeting.buffers[root].data)
            std::memcpy(target.data, meeting.buffers[root].data, target.bytes().value);
      } else if (buffer.dtype == DType::Float64) {
        sum<double>(meeting.buffers);
      } else {
        COX_ENSURE(buffer.dtype == DType::Float32);
        sum<float>(meeting.buffers);
      }
      for (auto& other : meeting.operations) finish(*other);
      meetings_.erase(next_[rank] - 1);
      raise_all();
    }
    return operation;
  }

  /// Rank r's `input` to place r of every rank's `output`.
  std::shared_ptr<Operation> gather(int rank, collective::BufferView input, collective::BufferView output,
                                    const std::vector<std::int64_t>& counts) {
    return meet(rank, input, output, counts, [](Meeting& meeting) {
      for (const auto& output_of_one : meeting.outputs) {
        std::int64_t at = 0;
        for (const auto& piece : meeting.buffers) {
          char* target = static_cast<char*>(output_of_one.data) + at;
          if (target != piece.data && piece.count > 0) std::memmove(target, piece.data, piece.bytes().value);
          at += piece.bytes().value;
        }
        COX_ENSURE(at == output_of_one.bytes().value, at);
      }
    });
  }

  /// The sum of all `input`s; rank r gets piece r.
  std::shared_ptr<Operation> scatter(int rank, collective::BufferView input, collective::BufferView output,
                                     const std::vector<std::int64_t>& counts) {
    COX_ENSURE(input.dtype == DType::Float32 && output.count == counts[rank], rank);
    return meet(rank, input, output, counts, [](Meeting& meeting) {
      std::int64_t at = 0;
      for (const auto& piece : meeting.outputs) {
        for (std::int64_t i = 0; i < piece.count; ++i) {
          float total = 0;
          for (const auto& buffer : meeting.buffers) total += static_cast<const float*>(buffer.data)[at + i];
          static_cast<float*>(piece.data)[i] = total;
        }
        at += piece.count;
      }
      COX_ENSURE(at == meeting.buffers[0].count, at);
    });
  }

  std::shared_ptr<Operation> exchange(int rank, const std::vector<collective::PointToPoint>& operations) {
    const std::lock_guard lock(mutex_);
    auto operation = std::make_shared<Operation>();
    operation->group = this;
    operation->remaining = static_cast<int>(operations.size());
    for (const auto& one : operations) {
      const bool sends = one.kind == collective::PointToPoint::Kind::Send;
      auto& box = boxes_[sends ? std::pair(rank, one.peer) : std::pair(one.peer, rank)];
      auto& waiting = sends ? box.receives : box.sends;
      if (waiting.empty()) {
        (sends ? box.sends : box.receives).push_back({one.buffer, operation});
        continue;
      }
      const auto [buffer, other] = waiting.front();
      waiting.pop_front();
      COX_ENSURE(buffer.bytes() == one.buffer.bytes(), rank, one.peer);
      std::memcpy(sends ? buffer.data : one.buffer.data, sends ? one.buffer.data : buffer.data, buffer.bytes().value);
      finish(*operation);
      finish(*other);
    }
    raise_all();
    return operation;
  }

  void abort(std::string reason) {
    const std::lock_guard lock(mutex_);
    reason_ = std::move(reason);
    raise_all();
  }

  const int size_;
  std::vector<collective::CompletionSignal*> signals_;  // by rank; set before use

 private:
  struct Meeting {
    std::vector<collective::BufferView> buffers, outputs;
    std::vector<std::int64_t> counts;
    std::vector<std::shared_ptr<Operation>> operations;
  };

  /// `work` by the rank that comes last.
  template <class Work>
  std::shared_ptr<Operation> meet(int rank, collective::BufferView input, collective::BufferView output,
                                  const std::vector<std::int64_t>& counts, Work work) {
    const std::lock_guard lock(mutex_);
    auto operation = std::make_shared<Operation>();
    operation->group = this;
    Meeting& meeting = meetings_[next_[rank]++];
    COX_ENSURE(meeting.operations.empty() || meeting.counts == counts, rank);
    meeting.counts = counts;
    meeting.buffers.resize(size_);
    meeting.outputs.resize(size_);
    meeting.buffers[rank] = input;
    meeting.outputs[rank] = output;
    meeting.operations.push_back(operation);
    if (static_cast<int>(meeting.operations.size()) == size_) {
      work(meeting);
      for (auto& other : meeting.operations) finish(*other);
      meetings_.erase(next_[rank] - 1);
      raise_all();
    }
    return operation;
  }

  struct Box {
    std::deque<std::pair<collective::BufferView, std::shared_ptr<Operation>>> sends, receives;
  };

  template <class T>
  static void sum(std::vector<collective::BufferView>& buffers) {
    for (std::int64_t i = 0; i < buffers[0].count; ++i) {
      T total = 0;
      for (const auto& buffer : buffers) total += static_cast<const T*>(buffer.data)[i];
      for (const auto& buffer : buffers) static_cast<T*>(buffer.data)[i] = total;
    }
  }
  void finish(Operation& operation) { --operation.remaining; }
  void raise_all() {
    changed_.notify_all();
    for (auto* signal : signals_)
      if (signal) signal->raise();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string reason_;
  std::vector<std::int64_t> next_;  // by rank: number of its next collective
  std::map<std::int64_t, Meeting> meetings_;
  std::map<std::pair<int, int>, Box> boxes_;
};

class ThreadCommunicator final : public collective::Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank) : group_(std::move(group)), rank_(rank) {
    capabilities_.name = "threads";
  }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int size() const override { return group_->size_; }
  [[nodiscard]] const collective::Capabilities& capabilities() const override { return capabilities_; }
  collective::Handle all_reduce(collective::BufferView buffer, collective::ReduceOp, Deadline) override {
    return collective::Handle(group_->reduce(rank_, buffer, -1));
  }
  collective::Handle broadcast(collective::BufferView buffer, int root, Deadline) override {
    return collective::Handle(group_->reduce(rank_, buffer, root));
  }
  collective::Handle exchange(std::vector<collective::PointToPoint> operations, Deadline) override {
    return collective::Handle(group_->exchange(rank_, operations));
  }
  collective::Handle barrier(Deadline) override {
    return collective::Handle(group_->reduce(rank_, {&nothing_, 1, DType::Float64}, -1));
  }
  collective::Handle all_gather(collective::BufferView input, collective::BufferView output,
                                std::vector<std::int64_t> counts, Deadline) override {
    return collective::Handle(group_->gather(rank_, input, output, counts));
  }
  collective::Handle reduce_scatter(collective::BufferView input, collective::BufferView output,
                                    std::vector<std::int64_t> counts, collective::ReduceOp, Deadline) override {
    return collective::Handle(group_->scatter(rank_, input, output, counts));
  }
  collective::Handle all_to_all(collective::BufferView, collective::BufferView, std::vector<std::int64_t>,
                                std::vector<std::int64_t>, Deadline) override {
    return unused();
  }
  Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "not in this fake", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes bytes) override {
    return std::shared_ptr<void>(std::malloc(bytes.value), std::free);
  }
  void abort(std::string reason) override { group_->abort(std::move(reason)); }

 private:
  static collective::Handle unused() {
    COX_ENSURE(false, "not in this fake");
    return {};
  }
  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  double nothing_ = 0;
  collective::Capabilities capabilities_;
};

}  // namespace coxswain::tests
