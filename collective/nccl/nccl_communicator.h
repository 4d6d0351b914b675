#pragma once
// The NCCL backend: buffers are device memory of the device that was current when the endpoint was opened; each
// communicator has its own stream, on which its operations run in order. The caller orders its own streams against them
// (a buffer is ready when the operation is issued). Threads: as Communicator says; a progress thread makes every NCCL
// call.
#include <cuda_runtime.h>
#include <nccl.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "collective/backend.h"
#include "collective/operation_queue.h"

namespace coxswain::collective {

[[nodiscard]] Result<void> check_nccl(ncclResult_t code, const char* call);
[[nodiscard]] Result<void> check_cuda(cudaError_t code, const char* call);

/// A communicator, its stream and why it ended; destroyed with the last holder.
class NcclGroup {
 public:
  NcclGroup(int device, int rank, int size) : device_(device), rank_(rank), size_(size) {}
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  /// Joins the world of `id`; `deadline` bounds it. Errors: Unavailable, DeadlineExceeded.
  Result<void> join(const ncclUniqueId& id, Deadline deadline);
  /// Becomes the part of `parent` with `color`. Every rank of `parent` calls it, with NCCL_SPLIT_NOCOLOR to stay out.
  Result<void> split_from(NcclGroup& parent, int color, int key, Deadline deadline);
  /// Runs `enqueue` (NCCL calls on stream()) and waits for the stream.
  Result<void> perform(const std::function<ncclResult_t()>& enqueue, Deadline deadline);

  void fail(Error error);
  [[nodiscard]] std::optional<Error> error() const;
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] int device() const { return device_; }
  [[nodiscard]] ncclComm_t comm() const { return comm_; }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  /// One element for barriers.
  [[nodiscard]] void* token() const { return token_; }

 private:
  Result<void> prepare_device();
  /// Waits until a call on a non-blocking communicator has settled.
  Result<void> settle(ncclComm_t comm, ncclResult_t code, const char* call, Deadline deadline);

  const int device_;
  const int rank_;
  const int size_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
  void* token_ = nullptr;
  mutable std::mutex mutex_;
  std::optional<Error> error_;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<NcclGroup> group, CompletionSignal* signal);
  ~NcclCommunicator() override;

  [[nodiscard]] int rank() const override { return group_->rank(); }
  [[nodiscard]] int size() const override { return group_->size(); }
  [[nodiscard]] const Capabilities& capabilities() const override { return capabilities_; }
  [[nodiscard]] Handle all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) override;
  [[nodiscard]] Handle all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                  Deadline deadline) override;
  [[nodiscard]] Handle reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                      ReduceOp op, Deadline deadline) override;
  [[nodiscard]] Handle all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                  std::vector<std::int64_t> receive_counts, Deadline deadline) override;
  [[nodiscard]] Handle broadcast(BufferView buffer, int root, Deadline deadline) override;
  [[nodiscard]] Handle exchange(std::vector<PointToPoint> operations, Deadline deadline) override;
  [[nodiscard]] Handle barrier(Deadline deadline) override;
  [[nodiscard]] Result<std::unique_ptr<Communicator>> split(std::vector<int> members, Deadline deadline) override;
  [[nodiscard]] Result<std::shared_ptr<void>> allocate_registered(Bytes bytes) override;
  void abort(std::string reason) override;

 private:
  Handle submit(std::string name, Deadline deadline, std::function<ncclResult_t()> enqueue);
  Handle refuse(Error error);
  Handle push(std::string name, OperationQueue::Body body);

  std::shared_ptr<NcclGroup> group_;
  CompletionSignal* const signal_;
  Capabilities capabilities_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<NcclGroup>> children_;
  OperationQueue queue_;
};

}  // namespace coxswain::collective
