// The conformance cases over the NCCL backend, at several world sizes. Ranks are processes; where there are fewer GPUs
// than ranks they share one: NCCL takes ranks of different NCCL_HOSTIDs for ranks of different hosts and lets them talk
// over sockets. The cases hold host memory, so each operation is staged through the device.
// Exit 0: all hold; 1: failures, on stderr; 77: no NCCL plug-in or no GPU here.
#include <cuda_runtime.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "collective/plugin.h"
#include "common/env.h"
#include "tests/collective/conformance.h"

using namespace coxswain;
using namespace coxswain::collective;

namespace {

/// Device memory that stands for a piece of host memory during one operation.
class Staged {
 public:
  explicit Staged(BufferView host, bool copy_in) : host_(host) {
    const auto bytes = static_cast<std::size_t>(host.bytes().value);
    cudaMalloc(&device_, std::max<std::size_t>(bytes, 1));
    if (copy_in && bytes > 0) cudaMemcpy(device_, host.data, bytes, cudaMemcpyHostToDevice);
  }
  Staged(const Staged&) = delete;
  Staged& operator=(const Staged&) = delete;
  ~Staged() { cudaFree(device_); }
  [[nodiscard]] BufferView view() const { return {device_, host_.count, host_.dtype}; }
  void copy_out() const {
    if (host_.count > 0)
      cudaMemcpy(host_.data, device_, static_cast<std::size_t>(host_.bytes().value), cudaMemcpyDeviceToHost);
  }

 private:
  BufferView host_;
  void* device_ = nullptr;
};

/// Waits for every operation before it returns, so that the host's memory holds the result.
class StagedCommunicator final : public Communicator {
 public:
  explicit StagedCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  [[nodiscard]] int rank() const override { return inner_->rank(); }
  [[nodiscard]] int size() const override { return inner_->size(); }
  [[nodiscard]] const Capabilities& capabilities() const override { return inner_->capabilities(); }
  [[nodiscard]] Handle all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) override {
    const Staged staged(buffer, true);
    return finish(inner_->all_reduce(staged.view(), op, deadline), staged, deadline);
  }
  [[nodiscard]] Handle all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                  Deadline deadline) override {
    const Staged from(input, true), to(output, false);
    return finish(inner_->all_gather(from.view(), to.view(), std::move(counts), deadline), to, deadline);
  }
  [[nodiscard]] Handle reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                      ReduceOp op, Deadline deadline) override {
    const Staged from(input, true), to(output, false);
    return finish(inner_->reduce_scatter(from.view(), to.view(), std::move(counts), op, deadline), to, deadline);
  }
  [[nodiscard]] Handle all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                  std::vector<std::int64_t> receive_counts, Deadline deadline) override {
    const Staged from(input, true), to(output, false);
    return finish(
        inner_->all_to_all(from.view(), to.view(), std::move(send_counts), std::move(receive_counts), deadline), to,
        deadline);
  }
  [[nodiscard]] Handle broadcast(BufferView buffer, int root, Deadline deadline) override {
    const Staged staged(buffer, true);
    return finish(inner_->broadcast(staged.view(), root, deadline), staged, deadline);
  }
  [[nodiscard]] Handle exchange(std::vector<PointToPoint> operations, Deadline deadline) override {
    std::vector<std::unique_ptr<Staged>> pieces;
    for (PointToPoint& operation : operations) {
      pieces.push_back(std::make_unique<Staged>(operation.buffer, operation.kind == PointToPoint::Kind::Send));
      operation.buffer = pieces.back()->view();
    }
    Handle handle = inner_->exchange(operations, deadline);
    if (!handle.wait(deadline)) return handle;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (operations[i].kind == PointToPoint::Kind::Receive) pieces[i]->copy_out();
    }
    return handle;
  }
  [[nodiscard]] Handle barrier(Deadline deadline) override { return inner_->barrier(deadline); }
  [[nodiscard]] Result<std::unique_ptr<Communicator>> split(std::vector<int> members, Deadline deadline) override {
    COX_TRY(auto part, inner_->split(std::move(members), deadline));
    if (!part) return std::unique_ptr<Communicator>();
    return std::unique_ptr<Communicator>(std::make_unique<StagedCommunicator>(std::move(part)));
  }
  [[nodiscard]] Result<std::shared_ptr<void>> allocate_registered(Bytes bytes) override {
    // The cases write into it by hand; that the backend's own gives device memory is checked once.
    COX_TRY(const auto device, inner_->allocate_registered(bytes));
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, device.get()) != cudaSuccess || attributes.type != cudaMemoryTypeDevice)
      return Error{ErrorCode::Internal, "registered memory is no device memory", "", "", "", ""};
    return std::shared_ptr<void>(std::calloc(1, static_cast<std::size_t>(bytes.value)), std::free);
  }
  void abort(std::string reason) override { inner_->abort(std::move(reason)); }

 private:
  static Handle finish(Handle handle, const Staged& result, Deadline deadline) {
    if (handle.wait(deadline)) result.copy_out();
    return handle;
  }

  std::unique_ptr<Communicator> inner_;
};

void run_rank(Rank& rank, int num_devices) {
  set_env("NCCL_HOSTID", "rank" + std::to_string(rank.rank));
  set_env("NCCL_SOCKET_IFNAME", "lo");
  cudaSetDevice(rank.rank % num_devices);
  EndpointOptions options = rank.options();
  options.backend = "nccl";
  auto communicator = rank.connect(options);
  if (!communicator) return rank.report.expect(false, to_text(communicator.error()));
  StagedCommunicator staged(std::move(*communicator));
  run_conformance(staged, rank.report);
  std::vector<int> everybody(static_cast<std::size_t>(rank.size));
  std::iota(everybody.begin(), everybody.end(), 0);
  const auto part = staged.split(everybody, soon());
  if (!part) return rank.report.expect(false, "split: " + to_text(part.error()));
  (*part)->abort("the test is over");
  const auto aborted = (*part)->barrier(soon()).wait(soon());
  rank.report.expect(!aborted && aborted.error().code == ErrorCode::Aborted, "alive after abort");
  rank.report.expect(staged.barrier(soon()).wait(soon()).has_value(), "a part's abort ended the whole");
  std::int16_t value = 0;
  const auto refused = staged.all_reduce({&value, 1, DType::Int16}, ReduceOp::Sum, soon()).wait(soon());
  rank.report.expect(!refused && refused.error().code == ErrorCode::Unimplemented, "reduced int16");
}

/// Asked of a child: this process must not touch CUDA before it forks.
int count_devices() {
  int counted = 0;
  const std::string text = run_processes(one_node(1), [](Rank& rank) {
    const auto plugin = load_plugin("nccl", "");
    Error reason;
    int devices = 0;
    if (plugin && plugin->usable(reason) && cudaGetDeviceCount(&devices) == cudaSuccess)
      rank.report.expect(false, std::to_string(devices));
  });
  if (const auto colon = text.find(": "); colon != std::string::npos) counted = std::stoi(text.substr(colon + 2));
  return counted;
}

}  // namespace

int main() {
  const int num_devices = count_devices();
  if (num_devices == 0) {
    std::cerr << "no NCCL plug-in or no GPU: skipped\n";
    return 77;
  }
  std::string failures;
  for (const int size : {1, 2, 3, 4}) {
    const std::string found = run_processes(one_node(size), [num_devices](Rank& rank) { run_rank(rank, num_devices); });
    std::cout << size << " ranks on " << num_devices << " GPU: " << (found.empty() ? "all cases hold\n" : found);
    failures += found;
  }
  return failures.empty() ? 0 : 1;
}
