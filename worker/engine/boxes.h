#pragma once
// Parts of tensors that are rows of each dim by itself: as boxes, each a run of every dim. Called by parameter_store
// and edge_buffers. Threads: as libtorch. Private to worker/engine.
#include <ATen/core/TensorBody.h>

#include <cstdint>
#include <vector>

#include "plan/layout/local_graph.h"

namespace coxswain::worker {

/// By dim of a tensor: which of its indices a part takes, ascending. Without dims: all of it.
using RowRuns = std::vector<std::vector<plan::Cut::Run>>;
[[nodiscard]] RowRuns runs_of(const std::vector<std::vector<std::int64_t>>& rows);
[[nodiscard]] std::vector<std::int64_t> part_sizes(const RowRuns& rows);

/// Whether the part is one run of memory of a contiguous tensor of these sizes.
[[nodiscard]] bool is_run(const std::vector<std::int64_t>& sizes, const RowRuns& rows);
/// The part as a view of `tensor`; undefined where it is several boxes.
[[nodiscard]] at::Tensor one_box(const at::Tensor& tensor, const RowRuns& rows);
/// Copies the part of `tensor` to `part`, which has part_sizes.
void take_boxes(const at::Tensor& tensor, const RowRuns& rows, const at::Tensor& part);
/// Copies `part` to its place in `tensor`, or adds it there.
void put_boxes(const at::Tensor& tensor, const RowRuns& rows, const at::Tensor& part, bool add);

}  // namespace coxswain::worker
