#pragma once
// What a parallel operator needs of its group: the communicator, and how long an exchange may take. Its own index in
// the group is the communicator's rank. Called by the kernels of operators that communicate. Threads: the one that
// issues on the communicator. Private to worker/engine. Source: DESIGN 3.6.
#include <ATen/core/TensorBody.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "collective/communicator.h"
#include "plan/layout/local_graph.h"

namespace coxswain::worker {

struct ParallelLink {
  collective::Communicator* communicator = nullptr;  // null: a group of one
  Seconds timeout{600};                              // of one exchange
  const Deadline* step = nullptr;                    // of the pass that runs, where set; kept by the engine
  // For errors: the operator ("block h.3: h.3.mlp: coxswain::all_reduce") and global ranks by index; kept by the
  // engine.
  const std::string* where = nullptr;
  const std::vector<int>* ranks = nullptr;

  [[nodiscard]] int size() const { return communicator ? communicator->size() : 1; }
  [[nodiscard]] int index() const { return communicator ? communicator->rank() : 0; }
  [[nodiscard]] Deadline deadline() const { return step ? *step : Deadline::after(steady_clock(), timeout); }
};

/// Carries the error of a communicator through libtorch's autograd to `guard_torch`, which returns it as it is.
class CommunicationError : public std::runtime_error {
 public:
  explicit CommunicationError(Error error) : std::runtime_error(error.message), error_(std::move(error)) {}
  [[nodiscard]] const Error& error() const { return error_; }

 private:
  Error error_;
};

/// The elements of a contiguous tensor.
[[nodiscard]] collective::BufferView buffer_of(const at::Tensor& tensor);

/// Sum (or maximum) over the group, in place; nothing in a group of one. `tensor`: contiguous. Throws
/// CommunicationError.
void all_reduce(const at::Tensor& tensor, collective::ReduceOp op, const ParallelLink& link);

/// Throws CommunicationError when the operation failed: names operator and peers where the link does.
void wait_for(collective::Handle handle, const ParallelLink& link);

/// Rows [first, first + size) of a dim that is split over a group. A member has as many runs as every other.
using Run = plan::Cut::Run;
/// `flat`: first and size of every run, member after member, as operators carry them.
[[nodiscard]] std::vector<std::vector<Run>> runs_by_member(const std::vector<std::int64_t>& flat, int members);
[[nodiscard]] std::int64_t total_size(const std::vector<Run>& runs);
[[nodiscard]] std::int64_t total_size(const std::vector<std::vector<Run>>& runs);

}  // namespace coxswain::worker
