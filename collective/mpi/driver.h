#pragma once
// The one thread of a process that calls MPI: it starts what is queued, drives the requests, completes the operations.
// MPI is initialised and finalised there, once. Threads: submit from any.
#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "collective/operation.h"
#include "collective/operation_mark.h"

namespace coxswain::collective {

/// Internal with MPI's text, or nothing for MPI_SUCCESS.
[[nodiscard]] Result<void> check_mpi(int code, const char* call);

/// An MPI communicator and whether it still works. Freed by the driver's thread.
class MpiGroup {
 public:
  MpiGroup(MPI_Comm comm, int rank, int size) : comm_(comm), rank_(rank), size_(size) {}
  [[nodiscard]] MPI_Comm comm() const { return comm_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  void fail(Error error);
  [[nodiscard]] std::optional<Error> error() const;
  void add_child(const std::shared_ptr<MpiGroup>& child);

 private:
  friend class MpiDriver;
  const MPI_Comm comm_;
  const int rank_;
  const int size_;
  int pending_ = 0;  // operations not yet completed; under the driver's mutex
  mutable std::mutex mutex_;
  std::optional<Error> error_;
  std::vector<std::weak_ptr<MpiGroup>> children_;
};

struct MpiTask {
  std::shared_ptr<Operation> operation;
  std::shared_ptr<MpiGroup> group;
  Deadline deadline;
  /// On the driver's thread: starts non-blocking calls. May be empty.
  std::function<Result<void>(std::vector<MPI_Request>&)> start;
  /// Blocks inside MPI: runs only when nothing else is queued or under way, because nothing else would move meanwhile.
  bool blocking = false;
  std::vector<MPI_Request> requests = {};
  OperationMark mark = {};  // named when the deadline passes
};

class MpiDriver {
 public:
  /// Initialises MPI on first use. Errors: FailedPrecondition.
  [[nodiscard]] static Result<MpiDriver*> instance();
  ~MpiDriver();

  [[nodiscard]] int world_rank() const { return world_rank_; }
  [[nodiscard]] int world_size() const { return world_size_; }
  void submit(MpiTask task);
  /// Returns when every operation of `group` has completed and nobody who waits for one is still to be told.
  void wait_idle(const MpiGroup& group, Deadline deadline);
  /// Frees the communicator when nothing uses it any more.
  void free(MPI_Comm comm);

 private:
  MpiDriver() = default;
  void run();
  Result<void> initialise();
  bool start_ready_tasks();
  bool drive();
  void finish(MpiTask& task, Result<void> result);
  void wait_for_work(int idle_polls);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<MpiTask> queue_;
  std::vector<MPI_Comm> unused_;
  bool stopping_ = false;
  std::optional<Result<void>> initialised_;

  // Of the driver's thread.
  std::list<MpiTask> active_;   // at most one per group, in order
  std::list<MpiTask> waiting_;  // behind an active one of their group
  bool sound_ = true;           // no operation was given up

  int world_rank_ = 0;
  int world_size_ = 1;
  std::thread thread_;
};

}  // namespace coxswain::collective
