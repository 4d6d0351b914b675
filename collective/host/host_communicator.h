#pragma once
// The host backend's Communicator: operations are queued, and one progress thread runs them in order. Threads: as
// Communicator says.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "collective/host/host_endpoint.h"
#include "collective/host/link_transport.h"
#include "collective/host/shared_stage.h"
#include "collective/operation_queue.h"

namespace coxswain::collective {

/// The communicator's state; handles and split communicators keep a weak hold of it.
class HostCore : public std::enable_shared_from_this<HostCore> {
 public:
  HostCore(GroupParts parts, CompletionSignal* signal, std::shared_ptr<RegisteredMemory> registered);
  ~HostCore();
  HostCore(const HostCore&) = delete;
  HostCore& operator=(const HostCore&) = delete;

  Handle submit(std::string name, const OperationMark& mark, OperationQueue::Body body);
  void abort(const std::string& reason);
  void add_child(const std::shared_ptr<HostCore>& child);
  /// Ends the progress thread; pending operations fail. Says farewell if the communicator is still sound.
  void close();

  [[nodiscard]] Group& group() { return group_; }
  // Of the progress thread.
  [[nodiscard]] Transport& transport() { return transport_; }
  [[nodiscard]] SharedStage& stage() { return stage_; }
  [[nodiscard]] Scratch& scratch() { return scratch_; }

 private:
  [[nodiscard]] Result<void> perform(const std::string& name, const OperationQueue::Body& body);

  CompletionSignal* const signal_;
  Group group_;
  LinkTransport transport_;
  SharedStage stage_;
  Scratch scratch_;

  std::mutex mutex_;
  bool closed_ = false;
  std::uint32_t num_collectives_ = 0;  // of the issuing thread
  std::vector<std::weak_ptr<HostCore>> children_;
  OperationQueue queue_;
};

class HostCommunicator final : public Communicator {
 public:
  HostCommunicator(std::shared_ptr<HostCore> core, EndpointOptions options, Lineage lineage);
  ~HostCommunicator() override;

  [[nodiscard]] int rank() const override { return core_->group().rank(); }
  [[nodiscard]] int size() const override { return core_->group().size(); }
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
  void abort(std::string reason) override { core_->abort(reason); }

  /// Steps and bytes that went through shared memory so far; for tests, when no operation is pending.
  [[nodiscard]] const StageTraffic& shared_traffic() const { return core_->stage().traffic(); }

 private:
  Result<std::vector<std::string>> swap_addresses(const std::string& own, const std::vector<int>& members,
                                                  Deadline deadline);

  std::shared_ptr<HostCore> core_;
  EndpointOptions options_;
  Lineage lineage_;
  Capabilities capabilities_;
  int num_splits_ = 0;
};

[[nodiscard]] std::unique_ptr<Communicator> make_host_communicator(GroupParts parts, const EndpointOptions& options,
                                                                   const Lineage& lineage);

}  // namespace coxswain::collective
