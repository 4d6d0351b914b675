#include "collective/mpi/reduce_op.h"

#include <array>

#include "collective/host/reduce.h"

namespace coxswain::collective {
namespace {

constexpr int kNumDtypes = 10;
constexpr int kNumOps = 3;

/// The function behind an MPI_Op knows neither dtype nor operation: one for each pair.
template <DType dtype, ReduceOp op>
void combine(void* in, void* in_out, int* count, MPI_Datatype*) {
  const std::byte* const sources[] = {static_cast<const std::byte*>(in), static_cast<const std::byte*>(in_out)};
  const auto bytes = static_cast<std::size_t>((size_of(dtype) * *count).value);
  reduce(dtype, op, static_cast<std::byte*>(in_out), sources, bytes);
}

template <DType dtype>
MPI_User_function* function_for(ReduceOp op) {
  switch (op) {
    case ReduceOp::Sum: return combine<dtype, ReduceOp::Sum>;
    case ReduceOp::Max: return combine<dtype, ReduceOp::Max>;
    case ReduceOp::Min: return combine<dtype, ReduceOp::Min>;
  }
  return nullptr;
}

MPI_User_function* function_for(DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::Bool: return function_for<DType::Bool>(op);
    case DType::UInt8: return function_for<DType::UInt8>(op);
    case DType::Int8: return function_for<DType::Int8>(op);
    case DType::Int16: return function_for<DType::Int16>(op);
    case DType::Int32: return function_for<DType::Int32>(op);
    case DType::Int64: return function_for<DType::Int64>(op);
    case DType::Float16: return function_for<DType::Float16>(op);
    case DType::BFloat16: return function_for<DType::BFloat16>(op);
    case DType::Float32: return function_for<DType::Float32>(op);
    case DType::Float64: return function_for<DType::Float64>(op);
  }
  return nullptr;
}

}  // namespace

MPI_Datatype mpi_type(DType dtype) {
  switch (size_of(dtype).value) {
    case 1: return MPI_UINT8_T;
    case 2: return MPI_UINT16_T;
    case 4: return MPI_UINT32_T;
    default: return MPI_UINT64_T;
  }
}

MPI_Op mpi_op(DType dtype, ReduceOp op) {
  static std::array<MPI_Op, kNumDtypes * kNumOps> made = [] {
    std::array<MPI_Op, kNumDtypes * kNumOps> none;
    none.fill(MPI_OP_NULL);
    return none;
  }();
  MPI_Op& result = made[static_cast<std::size_t>(dtype) * kNumOps + static_cast<std::size_t>(op)];
  if (result == MPI_OP_NULL) MPI_Op_create(function_for(dtype, op), 1, &result);
  return result;
}

}  // namespace coxswain::collective
