#pragma once
// The MPI backend: Communicator over non-blocking MPI calls, driven by the process's MPI thread. The world is fixed:
// ranks are started by mpirun or srun, and recovery is a whole restart. Threads: as Communicator says.
#include "collective/backend.h"
#include "collective/mpi/driver.h"

namespace coxswain::collective {

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MpiDriver& driver, std::shared_ptr<MpiGroup> group, CompletionSignal* signal);
  ~MpiCommunicator() override;

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
  void abort(std::string reason) override { group_->fail({ErrorCode::Aborted, "aborted: " + reason, "", "", "", ""}); }

 private:
  using Requests = std::vector<MPI_Request>;
  Handle submit(std::string name, const OperationMark& mark, Deadline deadline,
                std::function<Result<void>(Requests&)> start, bool blocking = false);

  MpiDriver& driver_;
  std::shared_ptr<MpiGroup> group_;
  CompletionSignal* const signal_;
  Capabilities capabilities_;
};

}  // namespace coxswain::collective
