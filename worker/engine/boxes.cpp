#include "worker/engine/boxes.h"

#include <ATen/core/Tensor.h>

#include "plan/layout/held_rows.h"

namespace coxswain::worker {
namespace {

/// Calls `visit(box of tensor, box of part)` for each box, dims from `dim` on still whole.
template <class Visit>
void visit_boxes(const at::Tensor& tensor, const RowRuns& rows, const at::Tensor& part, std::size_t dim,
                 const Visit& visit) {
  if (dim == rows.size()) return visit(tensor, part);
  std::int64_t first = 0;
  for (const plan::Cut::Run& run : rows[dim]) {
    const auto d = static_cast<std::int64_t>(dim);
    visit_boxes(tensor.narrow(d, run.first, run.size), rows, part.narrow(d, first, run.size), dim + 1, visit);
    first += run.size;
  }
}

}  // namespace

RowRuns runs_of(const std::vector<std::vector<std::int64_t>>& rows) {
  RowRuns runs;
  for (const auto& of_dim : rows) runs.push_back(plan::runs_of_rows(of_dim));
  return runs;
}

std::vector<std::int64_t> part_sizes(const RowRuns& rows) {
  std::vector<std::int64_t> sizes;
  for (const auto& runs : rows) {
    sizes.push_back(0);
    for (const plan::Cut::Run& run : runs) sizes.back() += run.size;
  }
  return sizes;
}

bool is_run(const std::vector<std::int64_t>& sizes, const RowRuns& rows) {
  bool one_index = true;  // of every dim so far: after that, only whole dims
  for (std::size_t d = 0; d < rows.size(); ++d) {
    if (rows[d].size() != 1) return false;
    if (!one_index && rows[d][0].size != sizes[d]) return false;
    one_index = one_index && rows[d][0].size == 1;
  }
  return true;
}

at::Tensor one_box(const at::Tensor& tensor, const RowRuns& rows) {
  at::Tensor box = tensor;
  for (std::size_t d = 0; d < rows.size(); ++d) {
    if (rows[d].size() != 1) return {};
    box = box.narrow(static_cast<std::int64_t>(d), rows[d][0].first, rows[d][0].size);
  }
  return box;
}

void take_boxes(const at::Tensor& tensor, const RowRuns& rows, const at::Tensor& part) {
  visit_boxes(tensor, rows, part, 0, [](const at::Tensor& from, const at::Tensor& to) { to.copy_(from); });
}

void put_boxes(const at::Tensor& tensor, const RowRuns& rows, const at::Tensor& part, bool add) {
  visit_boxes(tensor, rows, part, 0, [add](const at::Tensor& to, const at::Tensor& from) {
    if (add) {
      to.add_(from);
    } else {
      to.copy_(from);
    }
  });
}

}  // namespace coxswain::worker
