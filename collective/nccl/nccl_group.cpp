#include "collective/nccl/nccl_communicator.h"

#include <thread>

#include "common/clock.h"

namespace coxswain::collective {

Result<void> check_nccl(ncclResult_t code, const char* call) {
  if (code == ncclSuccess || code == ncclInProgress) return {};
  return Error{ErrorCode::Unavailable, std::string(call) + " failed: " + ncclGetErrorString(code), "", "", "", ""};
}

Result<void> check_cuda(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return {};
  return Error{ErrorCode::FailedPrecondition,
               std::string(call) + " failed: " + cudaGetErrorString(code),
               "",
               "",
               "",
               "nccl needs an NVIDIA driver and a CUDA device that this process may use"};
}

NcclGroup::~NcclGroup() {
  if (stream_ == nullptr && comm_ == nullptr) return;
  cudaSetDevice(device_);
  // An unsound communicator waits for nobody.
  if (comm_ != nullptr && error()) ncclCommAbort(comm_);
  if (comm_ != nullptr && !error()) {
    ncclResult_t state = ncclCommFinalize(comm_);
    while (state == ncclInProgress) {
      std::this_thread::yield();
      if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) break;
    }
    ncclCommDestroy(comm_);
  }
  if (token_ != nullptr) cudaFree(token_);
  if (event_ != nullptr) cudaEventDestroy(event_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void NcclGroup::fail(Error error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
}

std::optional<Error> NcclGroup::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

Result<void> NcclGroup::prepare_device() {
  COX_TRY_VOID(check_cuda(cudaSetDevice(device_), "cudaSetDevice"));
  COX_TRY_VOID(check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate"));
  COX_TRY_VOID(check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"));
  return check_cuda(cudaMalloc(&token_, sizeof(float)), "cudaMalloc");
}

Result<void> NcclGroup::settle(ncclComm_t comm, ncclResult_t code, const char* call, Deadline deadline) {
  COX_TRY_VOID(check_nccl(code, call));
  // A call may say "success" while its work has only begun (ncclCommSplit of 2.28 does): the state tells.
  while (true) {
    COX_TRY_VOID(check_nccl(ncclCommGetAsyncError(comm, &code), "ncclCommGetAsyncError"));
    if (code != ncclInProgress) return check_nccl(code, call);
    if (const auto ended = error()) return *ended;
    if (deadline.passed(steady_clock()))
      return Error{ErrorCode::DeadlineExceeded, std::string(call) + ": the deadline passed", "", "", "", ""};
    std::this_thread::yield();
  }
}

Result<void> NcclGroup::join(const ncclUniqueId& id, Deadline deadline) {
  COX_TRY_VOID(prepare_device());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t code = ncclCommInitRankConfig(&comm_, size_, id, rank_, &config);
  // Without a driver NCCL fails at once and leaves no communicator to ask.
  if (comm_ == nullptr) return check_nccl(code == ncclInProgress ? ncclInternalError : code, "ncclCommInitRank");
  Result<void> joined = settle(comm_, code, "ncclCommInitRank", deadline);
  if (!joined) fail(joined.error());
  return joined;
}

Result<void> NcclGroup::split_from(NcclGroup& parent, int color, int key, Deadline deadline) {
  if (color != NCCL_SPLIT_NOCOLOR) COX_TRY_VOID(prepare_device());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t code = ncclCommSplit(parent.comm(), color, key, &comm_, &config);
  Result<void> made = settle(parent.comm(), code, "ncclCommSplit", deadline);
  if (made && comm_ != nullptr) made = settle(comm_, ncclInProgress, "ncclCommSplit", deadline);
  if (!made) fail(made.error());
  return made;
}

Result<void> NcclGroup::perform(const std::function<ncclResult_t()>& enqueue, Deadline deadline) {
  if (const auto ended = error()) return *ended;
  COX_TRY_VOID(check_cuda(cudaSetDevice(device_), "cudaSetDevice"));
  COX_TRY_VOID(settle(comm_, enqueue(), "nccl", deadline));
  COX_TRY_VOID(check_cuda(cudaEventRecord(event_, stream_), "cudaEventRecord"));
  while (true) {
    const cudaError_t state = cudaEventQuery(event_);
    if (state != cudaErrorNotReady) return check_cuda(state, "cudaEventQuery");
    if (const auto ended = error()) return *ended;
    ncclResult_t asynchronous = ncclSuccess;
    COX_TRY_VOID(check_nccl(ncclCommGetAsyncError(comm_, &asynchronous), "ncclCommGetAsyncError"));
    COX_TRY_VOID(check_nccl(asynchronous, "nccl"));
    if (deadline.passed(steady_clock()))
      return Error{ErrorCode::DeadlineExceeded, "the deadline passed", "", "", "", ""};
    std::this_thread::yield();
  }
}

}  // namespace coxswain::collective
