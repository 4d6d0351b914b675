#include "collective/host/host_communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "collective/algorithm.h"

namespace coxswain::collective {
namespace {

Data data_of(const BufferView& view) {
  return {static_cast<std::byte*>(view.data), static_cast<std::size_t>(view.bytes().value)};
}

Bytes payload_of(const Data& data) { return Bytes(static_cast<std::int64_t>(data.size())); }

std::size_t element_bytes(DType dtype) { return static_cast<std::size_t>(size_of(dtype).value); }

/// Of the first of `operations`, which stands for all of them where it is told.
OperationMark mark_of(const std::vector<PointToPoint>& operations, const Group& group) {
  OperationMark mark = OperationMark::message(DType::UInt8, 0, 0);
  if (operations.empty()) return mark;
  const PointToPoint& first = operations.front();
  mark.count = static_cast<std::uint64_t>(first.buffer.count);
  mark.dtype = static_cast<std::uint8_t>(first.buffer.dtype);
  mark.op = first.kind == PointToPoint::Kind::Receive ? 1 : 0;
  if (first.peer >= 0 && first.peer < group.size())
    mark.detail = static_cast<std::uint32_t>(group.world_ranks()[static_cast<std::size_t>(first.peer)]) + 1;
  return mark;
}

Error wrong_counts(const std::string& what) {
  return {ErrorCode::InvalidArgument, what + ": the buffers do not hold what the counts say", "", "", "", ""};
}

bool fits(const std::vector<std::int64_t>& counts, int size, std::int64_t total) {
  if (counts.size() != static_cast<std::size_t>(size)) return false;
  if (std::any_of(counts.begin(), counts.end(), [](std::int64_t count) { return count < 0; })) return false;
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == total;
}

void copy(Data to, ConstData from) {
  if (!from.empty() && to.data() != from.data()) std::memmove(to.data(), from.data(), from.size());
}

// Addresses are short JSON; a fixed size saves an exchange of lengths.
constexpr std::size_t kAddressBytes = 1024;

}  // namespace

std::unique_ptr<Communicator> make_host_communicator(GroupParts parts, const EndpointOptions& options,
                                                     const Lineage& lineage) {
  auto core = std::make_shared<HostCore>(std::move(parts), options.signal, lineage.registered);
  return std::make_unique<HostCommunicator>(std::move(core), options, lineage);
}

HostCommunicator::HostCommunicator(std::shared_ptr<HostCore> core, EndpointOptions options, Lineage lineage)
    : core_(std::move(core)), options_(std::move(options)), lineage_(std::move(lineage)) {
  capabilities_.name = "host";
  capabilities_.elastic = true;
  capabilities_.abortable = true;
  capabilities_.registered_buffers = core_->group().one_node() && core_->group().size() > 1;
  capabilities_.reduce_dtypes = {DType::Bool,  DType::UInt8,   DType::Int8,     DType::Int16,   DType::Int32,
                                 DType::Int64, DType::Float16, DType::BFloat16, DType::Float32, DType::Float64};
}

HostCommunicator::~HostCommunicator() { core_->close(); }

Handle HostCommunicator::all_reduce(BufferView buffer, ReduceOp op, Deadline deadline) {
  return core_->submit(
      "all_reduce", OperationMark::of(OperationMark::kAllReduce, buffer, 0, op),
      [core = core_.get(), buffer, op, deadline]() -> Result<void> {
        const Data data = data_of(buffer);
        Reducer reducer{buffer.dtype, op};
        const Group& group = core->group();
        if (group.size() == 1) return {};
        switch (choose_algorithm(CollectiveKind::AllReduce, payload_of(data), group.size(), group.one_node())) {
          case Algorithm::SharedMemory: return core->stage().all_reduce(data, reducer, deadline);
          case Algorithm::RecursiveHalving:
            return halving_all_reduce(core->transport(), data, reducer, core->scratch(), deadline);
          case Algorithm::Tree: return tree_all_reduce(core->transport(), data, reducer, core->scratch(), deadline);
          default: return ring_all_reduce(core->transport(), data, reducer, core->scratch(), deadline);
        }
      });
}

Handle HostCommunicator::all_gather(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                    Deadline deadline) {
  // Made before the list goes into the closure.
  const OperationMark mark = OperationMark::of(OperationMark::kAllGather, output, hash_of(counts));
  return core_->submit(
      "all_gather", mark, [core = core_.get(), input, output, counts = std::move(counts), deadline]() -> Result<void> {
        const Group& group = core->group();
        if (!fits(counts, group.size(), output.count) || counts[static_cast<std::size_t>(group.rank())] != input.count)
          return wrong_counts("all_gather");
        const Layout layout = Layout::of_counts(counts, element_bytes(output.dtype));
        const Data gathered = data_of(output);
        copy(layout.of(gathered, group.rank()), data_of(input));
        if (group.size() == 1) return {};
        switch (choose_algorithm(CollectiveKind::AllGather, payload_of(gathered), group.size(), group.one_node())) {
          case Algorithm::SharedMemory: return core->stage().all_gather(gathered, layout, deadline);
          case Algorithm::Ring: return ring_all_gather(core->transport(), gathered, layout, deadline);
          default: return direct_all_gather(core->transport(), gathered, layout, deadline);
        }
      });
}

Handle HostCommunicator::reduce_scatter(BufferView input, BufferView output, std::vector<std::int64_t> counts,
                                        ReduceOp op, Deadline deadline) {
  // Made before the list goes into the closure.
  const OperationMark mark = OperationMark::of(OperationMark::kReduceScatter, input, hash_of(counts), op);
  return core_->submit(
      "reduce_scatter", mark,
      [core = core_.get(), input, output, counts = std::move(counts), op, deadline]() -> Result<void> {
        const Group& group = core->group();
        if (!fits(counts, group.size(), input.count) || counts[static_cast<std::size_t>(group.rank())] != output.count)
          return wrong_counts("reduce_scatter");
        const Layout layout = Layout::of_counts(counts, element_bytes(input.dtype));
        const Data whole = data_of(input);
        const Data piece = data_of(output);
        Reducer reducer{input.dtype, op};
        if (group.size() == 1) {
          copy(piece, whole);
          return {};
        }
        switch (choose_algorithm(CollectiveKind::ReduceScatter, payload_of(whole), group.size(), group.one_node())) {
          case Algorithm::SharedMemory: return core->stage().reduce_scatter(whole, piece, layout, reducer, deadline);
          case Algorithm::Ring:
            return ring_reduce_scatter(core->transport(), whole, piece, layout, reducer, core->scratch(), deadline);
          default:
            return direct_reduce_scatter(core->transport(), whole, piece, layout, reducer, core->scratch(), deadline);
        }
      });
}

Handle HostCommunicator::all_to_all(BufferView input, BufferView output, std::vector<std::int64_t> send_counts,
                                    std::vector<std::int64_t> receive_counts, Deadline deadline) {
  return core_->submit("all_to_all", OperationMark::of(OperationMark::kAllToAll, {nullptr, 0, input.dtype}),
                       [core = core_.get(), input, output, send_counts = std::move(send_counts),
                        receive_counts = std::move(receive_counts), deadline]() -> Result<void> {
                         const int size = core->group().size();
                         if (!fits(send_counts, size, input.count) || !fits(receive_counts, size, output.count))
                           return wrong_counts("all_to_all");
                         const Layout sends = Layout::of_counts(send_counts, element_bytes(input.dtype));
                         const Layout receives = Layout::of_counts(receive_counts, element_bytes(output.dtype));
                         return direct_all_to_all(core->transport(), data_of(input), sends, data_of(output), receives,
                                                  deadline);
                       });
}

Handle HostCommunicator::broadcast(BufferView buffer, int root, Deadline deadline) {
  return core_->submit("broadcast",
                       OperationMark::of(OperationMark::kBroadcast, buffer, static_cast<std::uint32_t>(root)),
                       [core = core_.get(), buffer, root, deadline]() -> Result<void> {
                         const Group& group = core->group();
                         if (root < 0 || root >= group.size())
                           return Error{ErrorCode::InvalidArgument, "no such root", "", "", std::to_string(root), ""};
                         const Data data = data_of(buffer);
                         if (group.size() == 1) return {};
                         if (group.one_node()) return core->stage().broadcast(data, root, deadline);
                         return tree_broadcast(core->transport(), data, root, deadline);
                       });
}

Handle HostCommunicator::exchange(std::vector<PointToPoint> operations, Deadline deadline) {
  // Made before the list goes into the closure.
  const OperationMark mark = mark_of(operations, core_->group());
  return core_->submit("exchange", mark,
                       [core = core_.get(), operations = std::move(operations), deadline]() -> Result<void> {
                         std::vector<Transfer> transfers;
                         transfers.reserve(operations.size());
                         for (const PointToPoint& operation : operations) {
                           const Data data = data_of(operation.buffer);
                           const bool sends = operation.kind == PointToPoint::Kind::Send;
                           transfers.push_back(sends ? Transfer::send(operation.peer, data, operation.buffer.dtype)
                                                     : Transfer::receive(operation.peer, data, operation.buffer.dtype));
                         }
                         return core->transport().exchange(transfers, deadline);
                       });
}

Handle HostCommunicator::barrier(Deadline deadline) {
  return core_->submit("barrier", OperationMark::of(OperationMark::kBarrier, {}),
                       [core = core_.get(), deadline]() -> Result<void> {
                         if (core->group().size() == 1) return {};
                         if (core->group().one_node()) return core->stage().barrier(deadline);
                         return tree_barrier(core->transport(), deadline);
                       });
}

Result<std::vector<std::string>> HostCommunicator::swap_addresses(const std::string& own,
                                                                  const std::vector<int>& members, Deadline deadline) {
  if (own.size() >= kAddressBytes)
    return Error{ErrorCode::FailedPrecondition, "the folder for sockets has too long a name", own, "", "", ""};
  std::vector<std::string> texts(members.size(), std::string(kAddressBytes, '\0'));
  std::string padded = own;
  padded.resize(kAddressBytes, '\0');
  std::vector<PointToPoint> operations;
  for (std::size_t i = 0; i < members.size(); ++i) {
    operations.push_back({PointToPoint::Kind::Send, members[i], {padded.data(), kAddressBytes, DType::UInt8}});
    operations.push_back({PointToPoint::Kind::Receive, members[i], {texts[i].data(), kAddressBytes, DType::UInt8}});
  }
  Handle swapped = exchange(std::move(operations), deadline);
  // The buffers are ours: wait until the operation itself, which has the deadline, is over.
  COX_TRY_VOID(swapped.wait(Deadline::never()));
  for (std::string& text : texts) text.resize(std::strlen(text.c_str()));
  return texts;
}

Result<std::unique_ptr<Communicator>> HostCommunicator::split(std::vector<int> members, Deadline deadline) {
  ++num_splits_;
  if (members.empty()) return std::unique_ptr<Communicator>();
  const auto self = std::find(members.begin(), members.end(), rank());
  std::vector<int> sorted = members;
  std::sort(sorted.begin(), sorted.end());
  const bool unique = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  if (self == members.end() || !unique || sorted.front() < 0 || sorted.back() >= size()) {
    return Error{ErrorCode::InvalidArgument,
                 "a group lists ranks of this communicator once each, the calling one among them",
                 "",
                 "",
                 "",
                 ""};
  }
  EndpointOptions options = options_;
  options.rank = static_cast<int>(self - members.begin());
  options.size = static_cast<int>(members.size());
  Lineage lineage = lineage_;
  lineage.watcher = core_->group().watcher();
  lineage.communicator += "/" + std::to_string(num_splits_) + ":";
  lineage.world_ranks.clear();
  for (const int member : members) {
    lineage.world_ranks.push_back(core_->group().world_ranks()[static_cast<std::size_t>(member)]);
    lineage.communicator += std::to_string(member) + ",";
  }
  COX_TRY(auto endpoint, HostEndpoint::open(options, lineage));
  COX_TRY(const auto addresses, swap_addresses(endpoint->address(), members, deadline));
  COX_TRY(auto communicator, endpoint->connect(addresses, deadline));
  core_->add_child(static_cast<HostCommunicator&>(*communicator).core_);
  return communicator;
}

Result<std::shared_ptr<void>> HostCommunicator::allocate_registered(Bytes bytes) {
  return lineage_.registered->allocate(static_cast<std::size_t>(bytes.value));
}

}  // namespace coxswain::collective
