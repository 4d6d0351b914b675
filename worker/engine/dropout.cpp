#include "worker/engine/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>

namespace coxswain::worker {
namespace {

constexpr std::int64_t kGroupsPerTask = 512;  // 16,384 elements: some 10 microseconds

at::Tensor run_dropout_kernel(const at::Tensor& tensor, const DropoutStream& stream, const DropoutPlace& place) {
  const c10::ScalarType type = tensor.scalar_type();
  if (type == c10::ScalarType::BFloat16 || type == c10::ScalarType::Half)
    return run_dropout_kernel(tensor.to(c10::ScalarType::Float), stream, place).to(type);
  TORCH_CHECK(type == c10::ScalarType::Float, "dropout takes float32, bfloat16 or float16, got ", type);
  const bool has_samples = place.rows_per_sample > 0;
  const at::Tensor input =
      (has_samples && place.sample_dim != 0 ? tensor.movedim(place.sample_dim, 0) : tensor).contiguous();
  at::Tensor output = at::empty_like(input);
  if (input.numel() == 0) return output;
  const std::int64_t num_samples = has_samples ? input.size(0) / place.rows_per_sample : 1;
  const std::int64_t elements = input.numel() / num_samples;
  const std::int64_t groups = (elements + kWordGroup - 1) / kWordGroup;
  const float* from = input.const_data_ptr<float>();
  float* to = output.mutable_data_ptr<float>();
  at::parallel_for(0, num_samples * groups, kGroupsPerTask, [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const std::int64_t sample = begin / groups, group = begin % groups;
      const std::int64_t here = std::min(groups - group, end - begin);
      const std::int64_t first = group * kWordGroup, count = std::min(here * kWordGroup, elements - first);
      const std::int64_t offset = sample * elements + first;
      const auto number = has_samples ? static_cast<std::uint32_t>(place.first_sample + sample) : kNoSample;
      apply_dropout(stream, number, group, count, from + offset, to + offset);
      begin += here;
    }
  });
  return has_samples && place.sample_dim != 0 ? output.movedim(0, place.sample_dim) : output;
}

struct DropoutBackward final : torch::autograd::Node {
  DropoutStream stream;
  DropoutPlace place;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    return {run_dropout_kernel(gradients[0], stream, place)};
  }
  std::string name() const override { return "CoxswainDropoutBackward"; }
};

}  // namespace

at::Tensor dropout(const at::Tensor& input, const DropoutStream& stream, const DropoutPlace& place) {
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = run_dropout_kernel(input, stream, place);
  }
  if (torch::autograd::compute_requires_grad(input)) {
    auto node = c10::make_intrusive<DropoutBackward>();
    node->stream = stream;
    node->place = place;
    node->set_next_edges(torch::autograd::collect_next_edges(input));
    torch::autograd::set_history(output, node);
  }
  return output;
}

}  // namespace coxswain::worker
