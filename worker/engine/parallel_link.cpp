#include "worker/engine/parallel_link.h"

#include <ATen/core/Tensor.h>

#include "worker/engine/tensor_types.h"

namespace coxswain::worker {

collective::BufferView buffer_of(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.is_contiguous(), "a collective takes contiguous tensors");
  return {tensor.data_ptr(), tensor.numel(), dtype_of(tensor.scalar_type())};
}

void wait_for(collective::Handle handle, const ParallelLink& link) {
  auto result = handle.wait(link.deadline());
  if (result) return;
  Error error = std::move(result).error();
  if (link.where) {
    error.message = "a collective inside a block failed: " + error.message;
    error.path = *link.where + (error.path.empty() ? "" : " " + error.path);
  }
  if (link.ranks && error.expected.empty()) {
    std::string others;
    for (std::size_t i = 0; i < link.ranks->size(); ++i)
      if (static_cast<int>(i) != link.index())
        others += (others.empty() ? "" : ", ") + std::to_string((*link.ranks)[i]);
    error.expected = "ranks " + others + " at the same operator";
    if (error.hint.empty()) error.hint = "look at the ranks named here first";
  }
  throw CommunicationError(std::move(error));
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
