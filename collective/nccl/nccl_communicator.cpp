#include "collective/nccl/nccl_communicator.h"

#include <algorithm>
#include <numeric>

namespace coxswain::collective {
namespace {

const std::vector<DType> kReduceDtypes{DType::Bool,    DType::UInt8,    DType::Int8,    DType::Int32,  DType::Int64,
                                       DType::Float16, DType::BFloat16, DType::Float32, DType::Float64};

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::Int8: return ncclInt8;
    case DType::Int32: return ncclInt32;
    case DType::Int64: return ncclInt64;
    case DType::Float16: return ncclFloat16;
    case DType::BFloat16: return ncclBfloat16;
    case DType::Float32: return ncclFloat32;
    case DType::Float64: return ncclFloat64;
    case DType::Bool:
    case DType::UInt8:
    case DType::Int16: break;
  }
  return ncclUint8;
}

ncclRedOp_t nccl_op(DType dtype, ReduceOp op) {
  // Bool is 0 or 1: "or" is the maximum.
  if (op == ReduceOp::Max || (dtype == DType::Bool && op == ReduceOp::Sum)) return ncclMax;
  return op == ReduceOp::Min ? ncclMin : ncclSum;
}

/// Moves are in bytes: every dtype can travel.
std::size_t bytes_of(DType dtype, std::int64_t count) {
  return static_cast<std::size_t>((size_of(dtype) * count).value);
}

std::byte* at(const BufferView& buffer, std::int64_t element) {
  return static_cast<std::byte*>(buffer.data) + bytes_of(buffer.dtype, element);
}

bool fits(const std::vector<std::int64_t>& counts, int size, std::int64_t total) {
  if (counts.size() != static_cast<std::size_t>(size)) return false;
  if (std::any_of(counts.begin(), counts.end(), [](std::int64_t count) { return count < 0; })) return false;
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == total;
}

Error wrong_counts(const char* what) {
  return {
      ErrorCode::InvalidArgument, std::string(what) + ": the buffers do not hold what the counts say", "", "", "", ""};
}

Error cannot_reduce(DType dtype) {
  return {ErrorCode::Unimplemented,
          "NCCL cannot reduce this dtype",
          "",
          "bool, uint8, int8, int32, int64 or a float",
          std::string(to_text(dtype)),
          ""};
}

bool can_reduce(DType dtype) {
  return std::find(kReduceDtypes.begin(), kReduceDtypes.end(), dtype) != kReduceDtypes.end();
}

/// Groups calls so that they progress together; the first failure is kept.
class Grouped {
 public:
  Grouped() { add(ncclGroupStart()); }
  void add(ncclResult_t code) {
    if (code_ == ncclSuccess && code != ncclInProgress) code_ = code;
  }
  ncclResult_t end() {
    const ncclResult_t ended = ncclGroupEnd();
    return code_ == ncclSuccess ? ended : code_;
  }

 private:
  ncclResult_t code_ = ncclSuccess;
};

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<NcclGroup> group, CompletionSignal* signal)
    : group_(std::move(group)),
      signal_(signal),
      queue_([this](const std::string& name, const OperationQueue::Body& body) -> Result<void> {
        Result<void> result = guard("collective/nccl", body);
        if (result) return result;
        Error error = std::move(result).error();
        error.message = name + ": " + error.message;
        group_->fail(std::move(error));
        return *group_->error();
      }) {
  capabilities_.name = "nccl";
  capabilities_.elastic = true;
  capabilities_.reduce_dtypes = kReduceDtypes;
}

NcclCommunicator::~NcclCommunicator() {
  if (queue_.pending()) abort("the communicator was destroyed with operations pending");
  queue_.stop();
}

Handle NcclCommunicator::push(std::string name, OperationQueue::Body body) {
  auto give_up = [group = std::weak_ptr(group_)](const Error& error) {
    if (const auto alive = group.lock()) alive->fail(error);
  };
  auto operation = std::make_shared<Operation>(std::move(name), signal_, std::move(give_up));
  queue_.push(operation, std::move(body));
  return Handle(operation);
}

Handle NcclCommunicator::submit(std::string name, Deadline deadline, std::function<ncclResult_t()> enqueue) {
  return push(std::move(name), [group = group_.get(), enqueue = std::move(enqueue), deadline] {
    return group->perform(enqueue, deadline);
  });
}

Handle NcclCommunicator::refuse(Error error) {
  return push("operation", [error = std::move(error)]() -> Result<void> { return error; });
}

Handle NcclCommunicator::all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) {
  if (!can_reduce(buffer.dtype)) return refuse(cannot_reduce(buffer.dtype));
  return submit("all_reduce", deadline, [group = group_.get(), buffer, op] {
    return ncclAllReduce(buffer.data, buffer.data, static_cast<std::size_t>(buffer.count), nccl_type(buffer.dtype),
                         nccl_op(buffer.dtype, op), group->comm(), group->stream());
  });
}

Handle NcclCommunicator::all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                    Deadline deadline) {
  if (!fits(counts, size(), output.count) || counts[static_cast<std::size_t>(rank())] != input.count)
    return refuse(wrong_counts("all_gather"));
  return submit("all_gather", deadline, [group = group_.get(), input, output, counts = std::move(counts)] {
    // Counts may differ: one broadcast from each rank, all together.
    Grouped calls;
    std::int64_t begin = 0;
    for (int root = 0; root < group->size(); ++root) {
      const std::int64_t count = counts[static_cast<std::size_t>(root)];
      void* piece = at(output, begin);
      const void* source = root == group->rank() ? input.data : piece;
      if (count > 0)
        calls.add(ncclBroadcast(source, piece, bytes_of(output.dtype, count), ncclUint8, root, group->comm(),
                                group->stream()));
      begin += count;
    }
    return calls.end();
  });
}

Handle NcclCommunicator::reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                        ReduceOp op, Deadline deadline) {
  if (!can_reduce(input.dtype)) return refuse(cannot_reduce(input.dtype));
  if (!fits(counts, size(), input.count) || counts[static_cast<std::size_t>(rank())] != output.count)
    return refuse(wrong_counts("reduce_scatter"));
  return submit("reduce_scatter", deadline, [group = group_.get(), input, output, counts = std::move(counts), op] {
    const ncclDataType_t type = nccl_type(input.dtype);
    const ncclRedOp_t operation = nccl_op(input.dtype, op);
    if (std::adjacent_find(counts.begin(), counts.end(), std::not_equal_to<>()) == counts.end()) {
      return ncclReduceScatter(input.data, output.data, static_cast<std::size_t>(output.count), type, operation,
                               group->comm(), group->stream());
    }
    Grouped calls;
    std::int64_t begin = 0;
    for (int root = 0; root < group->size(); ++root) {
      const std::int64_t count = counts[static_cast<std::size_t>(root)];
      if (count > 0)
        calls.add(ncclReduce(at(input, begin), output.data, static_cast<std::size_t>(count), type, operation, root,
                             group->comm(), group->stream()));
      begin += count;
    }
    return calls.end();
  });
}

Handle NcclCommunicator::all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                    std::vector<std::int64_t> receive_counts, Deadline deadline) {
  if (!fits(send_counts, size(), input.count) || !fits(receive_counts, size(), output.count))
    return refuse(wrong_counts("all_to_all"));
  std::vector<PointToPoint> operations;
  std::int64_t sent = 0;
  std::int64_t received = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const std::int64_t send_count = send_counts[static_cast<std::size_t>(peer)];
    const std::int64_t receive_count = receive_counts[static_cast<std::size_t>(peer)];
    operations.push_back({PointToPoint::Kind::Send, peer, {at(input, sent), send_count, input.dtype}});
    operations.push_back({PointToPoint::Kind::Receive, peer, {at(output, received), receive_count, output.dtype}});
    sent += send_count;
    received += receive_count;
  }
  return exchange(std::move(operations), deadline);
}

Handle NcclCommunicator::broadcast(BufferView buffer, int root, Deadline deadline) {
  return submit("broadcast", deadline, [group = group_.get(), buffer, root] {
    return ncclBroadcast(buffer.data, buffer.data, bytes_of(buffer.dtype, buffer.count), ncclUint8, root, group->comm(),
                         group->stream());
  });
}

Handle NcclCommunicator::exchange(std::vector<PointToPoint> operations, Deadline deadline) {
  return submit("exchange", deadline, [group = group_.get(), operations = std::move(operations)] {
    Grouped calls;
    for (const PointToPoint& operation : operations) {
      const std::size_t bytes = bytes_of(operation.buffer.dtype, operation.buffer.count);
      if (bytes == 0) continue;
      if (operation.kind == PointToPoint::Kind::Send) {
        calls.add(ncclSend(operation.buffer.data, bytes, ncclUint8, operation.peer, group->comm(), group->stream()));
      } else {
        calls.add(ncclRecv(operation.buffer.data, bytes, ncclUint8, operation.peer, group->comm(), group->stream()));
      }
    }
    return calls.end();
  });
}

Handle NcclCommunicator::barrier(Deadline deadline) {
  return submit("barrier", deadline, [group = group_.get()] {
    return ncclAllReduce(group->token(), group->token(), 1, ncclFloat32, ncclSum, group->comm(), group->stream());
  });
}

Result<std::unique_ptr<Communicator>> NcclCommunicator::split(std::vector<int> members, Deadline deadline) {
  const auto self = std::find(members.begin(), members.end(), rank());
  if (!members.empty() && self == members.end()) {
    return Error{ErrorCode::InvalidArgument,
                 "a group lists ranks of this communicator once each, the calling one among them",
                 "",
                 "",
                 "",
                 ""};
  }
  const int key = static_cast<int>(self - members.begin());
  // Groups of one moment are disjoint, so their first members tell them apart.
  const int color = members.empty() ? NCCL_SPLIT_NOCOLOR : members.front();
  auto part = std::make_shared<NcclGroup>(group_->device(), key, static_cast<int>(members.size()));
  Handle handle = push("split", [parent = group_.get(), part, color, key, deadline] {
    return part->split_from(*parent, color, key, deadline);
  });
  COX_TRY_VOID(handle.wait(Deadline::never()));
  if (members.empty()) return std::unique_ptr<Communicator>();
  {
    const std::lock_guard lock(mutex_);
    children_.push_back(part);
  }
  return std::unique_ptr<Communicator>(std::make_unique<NcclCommunicator>(std::move(part), signal_));
}

Result<std::shared_ptr<void>> NcclCommunicator::allocate_registered(Bytes bytes) {
  void* data = nullptr;
  COX_TRY_VOID(check_cuda(cudaSetDevice(group_->device()), "cudaSetDevice"));
  COX_TRY_VOID(
      check_cuda(cudaMalloc(&data, static_cast<std::size_t>(std::max<std::int64_t>(bytes.value, 1))), "cudaMalloc"));
  return std::shared_ptr<void>(data, [](void* memory) { cudaFree(memory); });
}

void NcclCommunicator::abort(std::string reason) {
  const Error error{ErrorCode::Aborted, "aborted: " + reason, "", "", "", ""};
  group_->fail(error);
  const std::lock_guard lock(mutex_);
  for (const auto& child : children_) {
    if (const auto alive = child.lock()) alive->fail(error);
  }
}

}  // namespace coxswain::collective
