#pragma once
// Collectives and point-to-point between the ranks of one group; names and semantics follow MPI and NCCL.
// Called by executor/ (which owns order and deadlines); implemented by host, MPI and NCCL backends and, in virtual
// time, by the simulator. Operations on one communicator run in the order in which they were issued, which must be the
// same on every rank (point-to-point: matched per ordered pair of ranks, in order).
// Threads: one issuing thread per communicator; any thread may wait or abort. Source: DESIGN 3.6.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/dtype.h"
#include "common/result.h"

namespace coxswain::collective {

enum class ReduceOp { Sum, Max, Min };

/// Borrowed memory: `count` elements of `dtype`, contiguous. `data` may be null only when count is 0 or in the
/// simulator.
struct BufferView {
  void* data = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::Float32;

  [[nodiscard]] Bytes bytes() const { return size_of(dtype) * count; }
};

/// Shared by every communicator of a process: its counter rises whenever any handle completes, so that one thread can
/// wait for the first of several. Seam of no one: concrete in completion_signal.cpp.
class CompletionSignal {
 public:
  CompletionSignal();
  ~CompletionSignal();
  [[nodiscard]] std::uint64_t count() const;
  void raise();
  /// Waits until count() != seen; false when the deadline passed first.
  bool wait_change(std::uint64_t seen, Deadline deadline);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Completion of one operation. Copyable; the operation goes on when every handle is dropped.
class Handle {
 public:
  class State {
   public:
    virtual ~State() = default;
    [[nodiscard]] virtual bool done() const = 0;
    /// Errors: DeadlineExceeded, Unavailable (names the lost rank), Aborted. After any the communicator is dead.
    virtual Result<void> wait(Deadline deadline) = 0;
  };
  Handle() = default;
  explicit Handle(std::shared_ptr<State> state) : state_(std::move(state)) {}
  /// True for an empty handle.
  [[nodiscard]] bool done() const { return !state_ || state_->done(); }
  Result<void> wait(Deadline deadline) { return state_ ? state_->wait(deadline) : Result<void>{}; }

 private:
  std::shared_ptr<State> state_;
};

/// One send or receive of a grouped exchange; `peer` is a rank of this communicator.
struct PointToPoint {
  enum class Kind { Send, Receive } kind = Kind::Send;
  int peer = 0;
  BufferView buffer;
};

/// What differs between backends, as data; read before choosing.
struct Capabilities {
  std::string name;                 // "host", "mpi", "nccl"
  bool elastic = false;             // can be rebuilt at another world size in the same process
  bool abortable = false;           // abort() frees a blocked peer at once
  bool registered_buffers = false;  // allocate_registered returns memory that collectives need not copy
  std::vector<DType> reduce_dtypes;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] virtual const Capabilities& capabilities() const = 0;

  /// Starts reducing `buffer` over all ranks, in place. Every rank ends with the same bits (host/algorithms.h says why;
  /// MPI 3.1, 5.9.6, and NCCL's all_reduce promise it): copies of a parameter on several stages rely on it.
  /// Shapes: same count and dtype on every rank; not checked, a mismatch ends at the deadline.
  [[nodiscard]] virtual Handle all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) = 0;
  /// `output` = concatenation over ranks; `counts[r]` elements from rank r (input.count == counts[rank()]). `input` may
  /// be this rank's own part of `output`.
  [[nodiscard]] virtual Handle all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                          Deadline deadline) = 0;
  /// Reduces `input` (sum of counts elements) and leaves piece `rank()` in `output` (counts[rank()] elements).
  [[nodiscard]] virtual Handle reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                              ReduceOp op, Deadline deadline) = 0;
  /// Sends send_counts[r] elements to rank r, in rank order inside `input`; receives receive_counts[r] from it.
  [[nodiscard]] virtual Handle all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                          std::vector<std::int64_t> receive_counts, Deadline deadline) = 0;
  [[nodiscard]] virtual Handle broadcast(BufferView buffer, int root, Deadline deadline) = 0;
  /// A group of sends and receives that progress together (no order among them, so no deadlock among them).
  [[nodiscard]] virtual Handle exchange(std::vector<PointToPoint> operations, Deadline deadline) = 0;
  [[nodiscard]] virtual Handle barrier(Deadline deadline) = 0;

  [[nodiscard]] Handle send(BufferView buffer, int peer, Deadline deadline) {
    return exchange({{PointToPoint::Kind::Send, peer, buffer}}, deadline);
  }
  [[nodiscard]] Handle recv(BufferView buffer, int peer, Deadline deadline) {
    return exchange({{PointToPoint::Kind::Receive, peer, buffer}}, deadline);
  }

  /// A communicator over `members` (ranks of this one, in the new order). Every rank of this communicator calls it with
  /// its own group or with an empty list, in the same global order; groups called at the same time are disjoint.
  /// Null for an empty list. Blocks until the group is up.
  [[nodiscard]] virtual Result<std::unique_ptr<Communicator>> split(std::vector<int> members, Deadline deadline) = 0;

  /// Memory that every rank of a node can reach, freed with the last view; plain memory where not supported.
  [[nodiscard]] virtual Result<std::shared_ptr<void>> allocate_registered(Bytes bytes) = 0;

  /// Ends this communicator and those split from it: every pending and later operation fails with Aborted. Any thread.
  virtual void abort(std::string reason) = 0;
};

}  // namespace coxswain::collective
