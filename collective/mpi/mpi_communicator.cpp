#include "collective/mpi/mpi_communicator.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <numeric>

#include "collective/mpi/reduce_op.h"

namespace coxswain::collective {
namespace {

constexpr int kTag = 0;  // one per communicator: messages of a pair are matched in order
// MPI counts are ints; longer buffers go in pieces of this many elements.
constexpr std::int64_t kPiece = std::int64_t{1} << 30;

Error wrong_counts(const char* what) {
  return {
      ErrorCode::InvalidArgument, std::string(what) + ": the buffers do not hold what the counts say", "", "", "", ""};
}

std::byte* at(const BufferView& buffer, std::int64_t element) {
  return static_cast<std::byte*>(buffer.data) + (size_of(buffer.dtype) * element).value;
}

/// Calls `each(offset, count)` for the pieces of `count` elements.
template <class Each>
Result<void> in_pieces(std::int64_t count, Each each) {
  for (std::int64_t done = 0; done < count; done += kPiece) {
    COX_TRY_VOID(each(done, static_cast<int>(std::min(kPiece, count - done))));
  }
  return {};
}

/// Counts and displacements as MPI wants them, kept until the call has completed.
struct IntLayout {
  std::vector<int> counts;
  std::vector<int> begins;

  [[nodiscard]] static std::shared_ptr<IntLayout> of(const std::vector<std::int64_t>& counts) {
    auto layout = std::make_shared<IntLayout>();
    std::int64_t begin = 0;
    for (const std::int64_t count : counts) {
      layout->counts.push_back(static_cast<int>(count));
      layout->begins.push_back(static_cast<int>(begin));
      begin += count;
    }
    return layout;
  }
};

Result<void> check_counts(const char* what, const std::vector<std::int64_t>& counts, int size, std::int64_t total) {
  const bool negative = std::any_of(counts.begin(), counts.end(), [](std::int64_t count) { return count < 0; });
  if (counts.size() != static_cast<std::size_t>(size) || negative ||
      std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) != total) {
    return wrong_counts(what);
  }
  if (total > INT_MAX)
    return Error{ErrorCode::OutOfRange,
                 std::string(what) + ": MPI counts elements in 31 bits",
                 "",
                 "",
                 std::to_string(total),
                 "use smaller buffers or backend host"};
  return {};
}

constexpr double kFarewellSeconds = 10;

}  // namespace

MpiCommunicator::MpiCommunicator(MpiDriver& driver, std::shared_ptr<MpiGroup> group, CompletionSignal* signal)
    : driver_(driver), group_(std::move(group)), signal_(signal) {
  capabilities_.name = "mpi";
  capabilities_.reduce_dtypes = {DType::Bool,  DType::UInt8,   DType::Int8,     DType::Int16,   DType::Int32,
                                 DType::Int64, DType::Float16, DType::BFloat16, DType::Float32, DType::Float64};
}

MpiCommunicator::~MpiCommunicator() {
  // Pending operations are given up; MPI cannot take them back, so the communicator then stays.
  group_->fail({ErrorCode::Aborted, "the communicator was destroyed", "", "", "", ""});
  // The driver raises the signal after the last waiter was woken, and the signal may go when this communicator has.
  driver_.wait_idle(*group_, Deadline::after(steady_clock(), Seconds(kFarewellSeconds)));
  driver_.free(group_->comm());
}

Handle MpiCommunicator::submit(std::string name, const OperationMark& mark, Deadline deadline,
                               std::function<Result<void>(Requests&)> start, bool blocking) {
  auto give_up = [group = std::weak_ptr(group_)](const Error& error) {
    if (const auto alive = group.lock()) alive->fail(error);
  };
  auto operation = std::make_shared<Operation>(std::move(name), signal_, std::move(give_up));
  driver_.submit({operation, group_, deadline, std::move(start), blocking, {}, mark});
  return Handle(operation);
}

Handle MpiCommunicator::all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) {
  return submit("all_reduce", OperationMark::of(OperationMark::kAllReduce, buffer, 0, op), deadline,
                [comm = group_->comm(), buffer, op](Requests& requests) {
                  return in_pieces(buffer.count, [&](std::int64_t begin, int count) {
                    return check_mpi(MPI_Iallreduce(MPI_IN_PLACE, at(buffer, begin), count, mpi_type(buffer.dtype),
                                                    mpi_op(buffer.dtype, op), comm, &requests.emplace_back()),
                                     "MPI_Iallreduce");
                  });
                });
}

Handle MpiCommunicator::all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                   Deadline deadline) {
  auto layout = IntLayout::of(counts);
  return submit(
      "all_gather", OperationMark::of(OperationMark::kAllGather, output), deadline,
      [group = group_.get(), input, output, counts = std::move(counts), layout](Requests& requests) -> Result<void> {
        COX_TRY_VOID(check_counts("all_gather", counts, group->size(), output.count));
        const auto self = static_cast<std::size_t>(group->rank());
        if (counts[self] != input.count) return wrong_counts("all_gather");
        const bool in_place = input.data == at(output, layout->begins[self]);
        const MPI_Datatype type = mpi_type(output.dtype);
        return check_mpi(MPI_Iallgatherv(in_place ? MPI_IN_PLACE : input.data, layout->counts[self], type, output.data,
                                         layout->counts.data(), layout->begins.data(), type, group->comm(),
                                         &requests.emplace_back()),
                         "MPI_Iallgatherv");
      });
}

Handle MpiCommunicator::reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                       ReduceOp op, Deadline deadline) {
  auto layout = IntLayout::of(counts);
  return submit("reduce_scatter", OperationMark::of(OperationMark::kReduceScatter, input, 0, op), deadline,
                [group = group_.get(), input, output, counts = std::move(counts), layout,
                 op](Requests& requests) -> Result<void> {
                  COX_TRY_VOID(check_counts("reduce_scatter", counts, group->size(), input.count));
                  if (counts[static_cast<std::size_t>(group->rank())] != output.count)
                    return wrong_counts("reduce_scatter");
                  return check_mpi(
                      MPI_Ireduce_scatter(input.data, output.data, layout->counts.data(), mpi_type(input.dtype),
                                          mpi_op(input.dtype, op), group->comm(), &requests.emplace_back()),
                      "MPI_Ireduce_scatter");
                });
}

Handle MpiCommunicator::all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                   std::vector<std::int64_t> receive_counts, Deadline deadline) {
  auto sends = IntLayout::of(send_counts);
  auto receives = IntLayout::of(receive_counts);
  return submit("all_to_all", OperationMark::of(OperationMark::kAllToAll, input), deadline,
                [group = group_.get(), input, output, send_counts = std::move(send_counts),
                 receive_counts = std::move(receive_counts), sends, receives](Requests& requests) -> Result<void> {
                  COX_TRY_VOID(check_counts("all_to_all", send_counts, group->size(), input.count));
                  COX_TRY_VOID(check_counts("all_to_all", receive_counts, group->size(), output.count));
                  const MPI_Datatype type = mpi_type(output.dtype);
                  return check_mpi(MPI_Ialltoallv(input.data, sends->counts.data(), sends->begins.data(), type,
                                                  output.data, receives->counts.data(), receives->begins.data(), type,
                                                  group->comm(), &requests.emplace_back()),
                                   "MPI_Ialltoallv");
                });
}

Handle MpiCommunicator::broadcast(BufferView buffer, int root, Deadline deadline) {
  return submit("broadcast", OperationMark::of(OperationMark::kBroadcast, buffer, static_cast<std::uint32_t>(root)),
                deadline, [comm = group_->comm(), buffer, root](Requests& requests) {
                  return in_pieces(buffer.count, [&](std::int64_t begin, int count) {
                    return check_mpi(MPI_Ibcast(at(buffer, begin), count, mpi_type(buffer.dtype), root, comm,
                                                &requests.emplace_back()),
                                     "MPI_Ibcast");
                  });
                });
}

Handle MpiCommunicator::exchange(std::vector<PointToPoint> operations, Deadline deadline) {
  OperationMark mark;
  if (!operations.empty())
    mark = OperationMark::of(OperationMark::kMessage, operations.front().buffer,
                             static_cast<std::uint32_t>(operations.front().peer) + 1);
  if (!operations.empty() && operations.front().kind == PointToPoint::Kind::Receive) mark.op = 1;
  return submit("exchange", mark, deadline,
                [group = group_.get(), operations = std::move(operations)](Requests& requests) -> Result<void> {
                  for (const PointToPoint& operation : operations) {
                    if (operation.peer < 0 || operation.peer >= group->size()) {
                      return Error{ErrorCode::InvalidArgument,
                                   "no such rank in this communicator",
                                   "",
                                   "0 to " + std::to_string(group->size() - 1),
                                   std::to_string(operation.peer),
                                   ""};
                    }
                    COX_TRY_VOID(in_pieces(operation.buffer.count, [&](std::int64_t begin, int count) {
                      std::byte* data = at(operation.buffer, begin);
                      const MPI_Datatype type = mpi_type(operation.buffer.dtype);
                      if (operation.kind == PointToPoint::Kind::Send) {
                        return check_mpi(
                            MPI_Isend(data, count, type, operation.peer, kTag, group->comm(), &requests.emplace_back()),
                            "MPI_Isend");
                      }
                      return check_mpi(
                          MPI_Irecv(data, count, type, operation.peer, kTag, group->comm(), &requests.emplace_back()),
                          "MPI_Irecv");
                    }));
                  }
                  return {};
                });
}

Handle MpiCommunicator::barrier(Deadline deadline) {
  return submit("barrier", OperationMark::of(OperationMark::kBarrier, {}), deadline,
                [comm = group_->comm()](Requests& requests) {
                  return check_mpi(MPI_Ibarrier(comm, &requests.emplace_back()), "MPI_Ibarrier");
                });
}

Result<std::unique_ptr<Communicator>> MpiCommunicator::split(std::vector<int> members, Deadline deadline) {
  if (members.empty()) return std::unique_ptr<Communicator>();
  if (std::find(members.begin(), members.end(), rank()) == members.end()) {
    return Error{ErrorCode::InvalidArgument,
                 "a group lists ranks of this communicator once each, the calling one among them",
                 "",
                 "",
                 "",
                 ""};
  }
  auto made = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
  // Only members take part, so the groups of one moment do not wait for each other.
  Handle handle = submit(
      "split", {}, deadline,
      [comm = group_->comm(), members, made](Requests&) -> Result<void> {
        MPI_Group whole = MPI_GROUP_NULL;
        MPI_Group part = MPI_GROUP_NULL;
        COX_TRY_VOID(check_mpi(MPI_Comm_group(comm, &whole), "MPI_Comm_group"));
        COX_TRY_VOID(check_mpi(MPI_Group_incl(whole, static_cast<int>(members.size()), members.data(), &part),
                               "MPI_Group_incl"));
        const Result<void> created =
            check_mpi(MPI_Comm_create_group(comm, part, kTag, made.get()), "MPI_Comm_create_group");
        MPI_Group_free(&whole);
        MPI_Group_free(&part);
        return created;
      },
      true);
  COX_TRY_VOID(handle.wait(deadline));
  const int own = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
  auto group = std::make_shared<MpiGroup>(*made, own, static_cast<int>(members.size()));
  group_->add_child(group);
  return std::unique_ptr<Communicator>(std::make_unique<MpiCommunicator>(driver_, std::move(group), signal_));
}

Result<std::shared_ptr<void>> MpiCommunicator::allocate_registered(Bytes bytes) {
  void* data = std::aligned_alloc(64, static_cast<std::size_t>((bytes.value + 64) / 64 * 64));
  if (data == nullptr)
    return Error{ErrorCode::ResourceExhausted, "out of memory", "", "", std::to_string(bytes.value) + " bytes", ""};
  return std::shared_ptr<void>(data, std::free);
}

}  // namespace coxswain::collective
