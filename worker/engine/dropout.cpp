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

/// One run of elements that follow each other in the whole: words are drawn for the groups that they touch.
void drop_run(const DropoutStream& stream, std::uint32_t sample, std::int64_t first, std::int64_t count,
              const float* from, float* to) {
  std::uint32_t words[kWordChunk];
  while (count > 0) {
    const std::int64_t group = first / kWordGroup, skipped = first % kWordGroup;
    const std::int64_t here = std::min(count, kWordChunk - skipped);
    random_words(stream, sample, group, (skipped + here + kWordGroup - 1) / kWordGroup, words);
    for (std::int64_t i = 0; i < here; ++i)
      to[i] = words[skipped + i] >= stream.threshold ? from[i] * stream.scale : 0.0F;
    first += here;
    count -= here;
    from += here;
    to += here;
  }
}

/// The part of a tensor: each line of its last dim in runs that are runs of the whole too.
class PartDropout {
 public:
  PartDropout(const DropoutStream& stream, const DropoutPlace& place)
      : stream_(stream), place_(place), sizes_(place.part->sizes), rows_(place.part->rows) {
    moved_ = has_samples() ? place.sample_dim : 0;
    std::rotate(sizes_.begin(), sizes_.begin() + moved_, sizes_.begin() + moved_ + 1);
    std::rotate(rows_.begin(), rows_.begin() + moved_, rows_.begin() + moved_ + 1);
    for (const std::int64_t size : sizes_) elements_ *= size;
    if (has_samples()) elements_ = elements_ / std::max<std::int64_t>(1, sizes_[0]) * place.rows_per_sample;
  }

  [[nodiscard]] at::Tensor run(const at::Tensor& tensor) const {
    const at::Tensor input = tensor.movedim(moved_, 0).contiguous();
    at::Tensor output = at::empty_like(input);
    if (input.numel() == 0) return output.movedim(0, moved_);
    const auto length = static_cast<std::int64_t>(rows_.back().size());
    const float* from = input.const_data_ptr<float>();
    float* to = output.mutable_data_ptr<float>();
    at::parallel_for(0, input.numel() / length, std::max<std::int64_t>(1, kGroupsPerTask * kWordGroup / length),
                     [&](std::int64_t begin, std::int64_t end) {
                       for (std::int64_t line = begin; line < end; ++line)
                         run_line(first_of(line), from + line * length, to + line * length);
                     });
    return output.movedim(0, moved_);
  }

 private:
  [[nodiscard]] bool has_samples() const { return place_.rows_per_sample > 0; }

  // The whole's number, row-major, of what stands at index 0 of the last dim.
  [[nodiscard]] std::int64_t first_of(std::int64_t line) const {
    std::int64_t first = 0, scale = sizes_.back();
    for (std::size_t d = sizes_.size() - 1; d-- > 0;) {
      const auto count = static_cast<std::int64_t>(rows_[d].size());
      first += rows_[d][static_cast<std::size_t>(line % count)] * scale;
      line /= count;
      scale *= sizes_[d];
    }
    return first;
  }

  void run_line(std::int64_t base, const float* from, float* to) const {
    const std::vector<std::int64_t>& rows = rows_.back();
    for (std::size_t i = 0, next = 0; i < rows.size(); i = next) {
      const std::int64_t first = base + rows[i], sample = first / elements_;
      // A run ends with its sample.
      for (next = i + 1;
           next < rows.size() && rows[next] == rows[next - 1] + 1 && (base + rows[next]) / elements_ == sample;)
        ++next;
      const auto number = has_samples() ? static_cast<std::uint32_t>(place_.first_sample + sample) : kNoSample;
      drop_run(stream_, number, first % elements_, static_cast<std::int64_t>(next - i), from + i, to + i);
    }
  }

  const DropoutStream& stream_;
  const DropoutPlace& place_;
  std::vector<std::int64_t> sizes_;  // samples first
  std::vector<std::vector<std::int64_t>> rows_;
  std::int64_t elements_ = 1;  // of a sample
  int moved_ = 0;
};

at::Tensor run_dropout_kernel(const at::Tensor& tensor, const DropoutStream& stream, const DropoutPlace& place) {
  const c10::ScalarType type = tensor.scalar_type();
  if (type == c10::ScalarType::BFloat16 || type == c10::ScalarType::Half)
    return run_dropout_kernel(tensor.to(c10::ScalarType::Float), stream, place).to(type);
  TORCH_CHECK(type == c10::ScalarType::Float, "dropout takes float32, bfloat16 or float16, got ", type);
  if (place.part) return PartDropout(stream, place).run(tensor);
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
