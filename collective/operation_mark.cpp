#include "collective/operation_mark.h"

#include <cstdio>

namespace coxswain::collective {
namespace {

const char* name_of(std::uint8_t kind) {
  switch (kind) {
    case OperationMark::kAllReduce: return "all_reduce";
    case OperationMark::kAllGather: return "all_gather";
    case OperationMark::kReduceScatter: return "reduce_scatter";
    case OperationMark::kAllToAll: return "all_to_all";
    case OperationMark::kBroadcast: return "broadcast";
    case OperationMark::kBarrier: return "barrier";
    default: return "a message";
  }
}

const char* name_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::Sum: return "sum";
    case ReduceOp::Max: return "max";
    case ReduceOp::Min: return "min";
  }
  return "";
}

}  // namespace

OperationMark OperationMark::of(Kind kind, const BufferView& buffer, std::uint32_t detail, ReduceOp op) {
  OperationMark mark;
  mark.kind = kind;
  mark.count = static_cast<std::uint64_t>(buffer.count);
  mark.dtype = static_cast<std::uint8_t>(buffer.dtype);
  mark.detail = detail;
  mark.op = static_cast<std::uint8_t>(op);
  return mark;
}

OperationMark OperationMark::message(DType dtype, std::uint64_t count, std::uint32_t sequence) {
  OperationMark mark;
  mark.kind = kMessage;
  mark.count = count;
  mark.dtype = static_cast<std::uint8_t>(dtype);
  mark.sequence = sequence;
  return mark;
}

std::uint32_t hash_of(const std::vector<std::int64_t>& counts) {
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (const std::int64_t count : counts) {
    hash = (hash ^ static_cast<std::uint32_t>(count)) * 16777619u;
    hash = (hash ^ static_cast<std::uint32_t>(count >> 32)) * 16777619u;
  }
  return hash;
}

std::string to_text(const OperationMark& mark) {
  if (mark.magic != OperationMark{}.magic || mark.kind > OperationMark::kMessage ||
      mark.dtype > static_cast<std::uint8_t>(DType::Float64))
    return "the rest of a longer operation";
  if (mark.kind == OperationMark::kNone) return "no operation";
  std::string text = name_of(mark.kind);
  const bool reduces = mark.kind == OperationMark::kAllReduce || mark.kind == OperationMark::kReduceScatter;
  if (mark.kind != OperationMark::kBarrier && mark.kind != OperationMark::kAllToAll)
    text += " of " + std::to_string(mark.count) + " " + std::string(to_text(static_cast<DType>(mark.dtype)));
  if (reduces) text += std::string(", ") + name_of(static_cast<ReduceOp>(mark.op));
  if (mark.kind == OperationMark::kBroadcast) text += " from rank " + std::to_string(mark.detail);
  if (mark.detail > 0 && (mark.kind == OperationMark::kAllGather || mark.kind == OperationMark::kReduceScatter)) {
    char hash[16];
    std::snprintf(hash, sizeof hash, "%08x", mark.detail);
    text += std::string(", parts ") + hash;
  }
  if (mark.kind == OperationMark::kMessage && mark.detail > 0)
    text += (mark.op == 1 ? " from rank " : " to rank ") + std::to_string(mark.detail - 1);
  if (mark.sequence == 0) return text;
  const bool message = mark.kind == OperationMark::kMessage;
  return text + (message ? " (number " : " (collective ") + std::to_string(mark.sequence) + ")";
}

Error mismatch(int own_rank, const OperationMark& own, int other_rank, const OperationMark& other) {
  const auto side = [](int rank, const OperationMark& mark) {
    return "rank " + std::to_string(rank) + ": " + to_text(mark);
  };
  return {ErrorCode::FailedPrecondition,
          "ranks disagree: " + side(own_rank, own) + "; " + side(other_rank, other),
          "rank " + std::to_string(own_rank) + ", rank " + std::to_string(other_rank),
          "the same operation on both",
          "",
          "ranks run different plans or models: give every node the same files"};
}

}  // namespace coxswain::collective
