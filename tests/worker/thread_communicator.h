#pragma once
// Fake of Communicator for ranks that are threads of one process: whoever comes last does the work, in rank order, so
// that every rank ends with the same bits. For tests of the engine. Threads: one rank each.
#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
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

  /// What one rank brings to a collective, and what the last one does with all of it.
  struct Part {
    collective::BufferView input, output;
    std::vector<std::int64_t> counts, receive_counts;
  };
  using Work = std::function<void(std::vector<Part>&)>;

  std::shared_ptr<Operation> meet(int rank, Part part, const Work& work) {
    const std::lock_guard lock(mutex_);
    auto operation = std::make_shared<Operation>();
    operation->group = this;
    Meeting& meeting = meetings_[next_[rank]++];
    meeting.parts.resize(size_);
    meeting.parts[rank] = std::move(part);
    meeting.operations.push_back(operation);
    if (static_cast<int>(meeting.operations.size()) == size_) {
      work(meeting.parts);
      for (auto& other : meeting.operations) finish(*other);
      meetings_.erase(next_[rank] - 1);
      raise_all();
    }
    return operation;
  }

  std::shared_ptr<Operation> reduce(int rank, collective::BufferView buffer, int root,
                                    collective::ReduceOp op = collective::ReduceOp::Sum) {
    return meet(rank, {buffer, buffer, {}, {}}, [root, op](std::vector<Part>& parts) {
      std::vector<collective::BufferView> buffers;
      for (const Part& part : parts) buffers.push_back(part.input);
      if (root < 0) return combine_all(buffers, op);
      for (auto& target : buffers)
        if (target.data != buffers[root].data) std::memcpy(target.data, buffers[root].data, target.bytes().value);
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
    std::vector<Part> parts;
    std::vector<std::shared_ptr<Operation>> operations;
  };
  struct Box {
    std::deque<std::pair<collective::BufferView, std::shared_ptr<Operation>>> sends, receives;
  };

  template <class T>
  static void combine(std::vector<collective::BufferView>& buffers, collective::ReduceOp op) {
    COX_ENSURE(op != collective::ReduceOp::Min, "not in this fake");
    for (std::int64_t i = 0; i < buffers[0].count; ++i) {
      T total = static_cast<const T*>(buffers[0].data)[i];
      for (std::size_t b = 1; b < buffers.size(); ++b) {
        const T next = static_cast<const T*>(buffers[b].data)[i];
        total = op == collective::ReduceOp::Max ? std::max(total, next) : total + next;
      }
      for (const auto& buffer : buffers) static_cast<T*>(buffer.data)[i] = total;
    }
  }
  // Added up in float32, rounded once to the nearest, ties to even.
  static void sum_bfloat16(std::vector<collective::BufferView>& buffers) {
    for (std::int64_t i = 0; i < buffers[0].count; ++i) {
      float total = 0;
      for (const auto& buffer : buffers)
        total += std::bit_cast<float>(std::uint32_t{static_cast<const std::uint16_t*>(buffer.data)[i]} << 16);
      const auto bits = std::bit_cast<std::uint32_t>(total);
      const auto rounded = static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
      for (const auto& buffer : buffers) static_cast<std::uint16_t*>(buffer.data)[i] = rounded;
    }
  }

 public:
  static void combine_all(std::vector<collective::BufferView>& buffers,
                          collective::ReduceOp op = collective::ReduceOp::Sum) {
    for (const auto& buffer : buffers) COX_ENSURE(buffer.count == buffers[0].count, buffer.count, buffers[0].count);
    switch (buffers[0].dtype) {
      case DType::Float64: return combine<double>(buffers, op);
      case DType::Float32: return combine<float>(buffers, op);
      case DType::BFloat16: COX_ENSURE(op == collective::ReduceOp::Sum); return sum_bfloat16(buffers);
      default: COX_ENSURE(false, "no sum of this dtype in this fake");
    }
  }

 private:
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
  collective::Handle all_reduce(collective::BufferView buffer, collective::ReduceOp op, Deadline) override {
    return collective::Handle(group_->reduce(rank_, buffer, -1, op));
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
    return collective::Handle(group_->meet(rank_, {input, output, std::move(counts), {}}, [](Parts& parts) {
      for (Part& to : parts) {
        std::byte* next = static_cast<std::byte*>(to.output.data);
        for (std::size_t r = 0; r < parts.size(); ++r) {
          COX_ENSURE(parts[r].input.count == to.counts[r], r);
          next = copy(parts[r].input.data, parts[r].input.bytes(), next);
        }
      }
    }));
  }
  collective::Handle reduce_scatter(collective::BufferView input, collective::BufferView output,
                                    std::vector<std::int64_t> counts, collective::ReduceOp, Deadline) override {
    return collective::Handle(group_->meet(rank_, {input, output, std::move(counts), {}}, [](Parts& parts) {
      std::vector<std::vector<std::byte>> sums;
      std::vector<collective::BufferView> buffers;
      for (const Part& part : parts) {
        const auto* first = static_cast<const std::byte*>(part.input.data);
        sums.emplace_back(first, first + part.input.bytes().value);
        buffers.push_back({sums.back().data(), part.input.count, part.input.dtype});
      }
      ThreadGroup::combine_all(buffers);
      std::int64_t first = 0;
      for (std::size_t r = 0; r < parts.size(); ++r) {
        COX_ENSURE(parts[r].output.count == parts[0].counts[r], r);
        copy(sums[r].data() + first, parts[r].output.bytes(), static_cast<std::byte*>(parts[r].output.data));
        first += parts[r].output.bytes().value;
      }
    }));
  }
  collective::Handle all_to_all(collective::BufferView input, collective::BufferView output,
                                std::vector<std::int64_t> send_counts, std::vector<std::int64_t> receive_counts,
                                Deadline) override {
    Part part{input, output, std::move(send_counts), std::move(receive_counts)};
    return collective::Handle(group_->meet(rank_, std::move(part), [](Parts& parts) {
      std::vector<const std::byte*> from;
      for (const Part& part : parts) from.push_back(static_cast<const std::byte*>(part.input.data));
      for (std::size_t to = 0; to < parts.size(); ++to) {
        std::byte* next = static_cast<std::byte*>(parts[to].output.data);
        for (std::size_t r = 0; r < parts.size(); ++r) {
          COX_ENSURE(parts[r].counts[to] == parts[to].receive_counts[r], r, to);
          const Bytes bytes = size_of(parts[r].input.dtype) * parts[r].counts[to];
          next = copy(from[r], bytes, next);
          from[r] += bytes.value;
        }
      }
    }));
  }
  Result<std::unique_ptr<Communicator>> split(std::vector<int>, Deadline) override {
    return Error{ErrorCode::Unimplemented, "not in this fake", "", "", "", ""};
  }
  Result<std::shared_ptr<void>> allocate_registered(Bytes bytes) override {
    return std::shared_ptr<void>(std::malloc(bytes.value), std::free);
  }
  void abort(std::string reason) override { group_->abort(std::move(reason)); }

 private:
  using Part = ThreadGroup::Part;
  using Parts = std::vector<Part>;
  static std::byte* copy(const void* from, Bytes bytes, std::byte* to) {
    if (bytes.value > 0) std::memcpy(to, from, bytes.value);
    return to + bytes.value;
  }
  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  double nothing_ = 0;
  collective::Capabilities capabilities_;
};

}  // namespace coxswain::tests
