#pragma once
// Dtypes and operations for MPI. All sums are our own MPI_Op, so that half precisions, bool and NaN mean the same on
// every backend; MPI sees words of the right size. Threads: the MPI thread.
#include <mpi.h>

#include "collective/communicator.h"

namespace coxswain::collective {

[[nodiscard]] MPI_Datatype mpi_type(DType dtype);
/// Made on first use, kept until MPI ends.
[[nodiscard]] MPI_Op mpi_op(DType dtype, ReduceOp op);

}  // namespace coxswain::collective
