#include "worker/engine/parallel_link.h"

#include <ATen/core/Tensor.h>

#include "worker/engine/tensor_types.h"

namespace coxswain::worker {

collective::BufferView buffer_of(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "a collective takes contiguous tensors");
  return {tensor.data_ptr(), tensor.numel(), dtype_of(tensor.scalar_type())};
}

void wait_for(collective::Handle handle, const ParallelLink& link) {
  const auto result = handle.wait(link.deadline());
  if (!result) throw CommunicationError(result.error());
}

void all_reduce(const at::Tensor& tensor, collective::ReduceOp op, const ParallelLink& link) {
  if (link.size() == 1 || tensor.numel() == 0) return;
  wait_for(link.communicator->all_reduce(buffer_of(tensor), op, link.deadline()), link);
}

std::vector<std::vector<Run>> runs_by_member(const std::vector<std::int64_t>& flat, int members) {
  const auto count = static_cast<std::size_t>(members);
  TORCH_CHECK(members > 0 && !flat.empty() && flat.size() % (2 * count) == 0, "first and size of every run of ",
              members, " members, the same number each; got ", flat.size(), " numbers");
  const std::size_t each = flat.size() / (2 * count);
  std::vector<std::vector<Run>> runs(count);
  for (std::size_t i = 0; i < count * each; ++i) runs[i / each].push_back({flat[2 * i], flat[2 * i + 1]});
  return runs;
}

std::int64_t total_size(const std::vector<Run>& runs) {
  std::int64_t total = 0;
  for (const Run& run : runs) total += run.size;
  return total;
}

std::int64_t total_size(const std::vector<std::vector<Run>>& runs) {
  std::int64_t total = 0;
  for (const auto& member : runs) total += total_size(member);
  return total;
}

}  // namespace coxswain::worker
