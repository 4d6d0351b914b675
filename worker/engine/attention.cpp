#include "worker/engine/attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "worker/engine/block_storages.h"
#include "worker/engine/softmax_rows.h"

namespace coxswain::worker {
namespace {

/// Sizes after the leading dims were merged.
struct Shape {
  std::int64_t matrices = 0, queries = 0, keys = 0;
  std::int64_t matrices_per_sample = 0;  // 0: no sample dim
};

Shape shape_of(const AttentionArguments& arguments) {
  const at::Tensor& query = arguments.query;
  Shape shape;
  shape.queries = query.size(-2);
  shape.keys = arguments.key.size(-2);
  shape.matrices = query.numel() / std::max<std::int64_t>(1, shape.queries * query.size(-1));
  if (arguments.place.rows_per_sample > 0) {
    TORCH_CHECK(arguments.place.sample_dim == 0, "attention with dropout takes its samples on dim 0, got dim ",
                arguments.place.sample_dim);
    shape.matrices_per_sample =
        shape.matrices / std::max<std::int64_t>(1, query.size(0)) * arguments.place.rows_per_sample;
  }
  return shape;
}

at::Tensor merged(const at::Tensor& tensor) {
  return tensor.reshape({-1, tensor.size(-2), tensor.size(-1)}).contiguous();
}

// The mask as something to add, with the strides of a broadcast over the leading dims.
at::Tensor additive_mask(const AttentionArguments& arguments, const Shape& shape) {
  at::Tensor mask = arguments.mask;
  if (mask.scalar_type() == c10::ScalarType::BFloat16 || mask.scalar_type() == c10::ScalarType::Half)
    mask = mask.to(c10::ScalarType::Float);
  if (mask.scalar_type() == c10::ScalarType::Bool) {
    const auto options = mask.options().dtype(c10::ScalarType::Float);
    mask = at::where(mask, at::full({}, 0.0, options), at::full({}, -std::numeric_limits<double>::infinity(), options));
  }
  TORCH_CHECK(mask.scalar_type() == c10::ScalarType::Float && !mask.requires_grad(),
              "attention with dropout takes a bool or floating-point mask without gradient");
  if (mask.dim() == 2) return mask.contiguous().unsqueeze(0).expand({shape.matrices, shape.queries, shape.keys});
  std::vector<std::int64_t> sizes(arguments.query.sizes().begin(), arguments.query.sizes().end());
  sizes.back() = shape.keys;
  return mask.expand(sizes).reshape({shape.matrices, shape.queries, shape.keys});
}

/// Whose words a row of scores draws: its sample, and its number among the sample's rows.
struct RowPlace {
  std::uint32_t sample = kNoSample;
  std::int64_t row = 0;
};

/// The same for rows of a part: heads and queries count in the whole.
std::vector<RowPlace> part_rows(const AttentionArguments& arguments, const Shape& shape) {
  const PartIndex& part = *arguments.place.part;
  const std::size_t leading = part.sizes.size() - 2;
  std::int64_t per_sample = arguments.place.rows_per_sample;  // matrices of the whole
  for (std::size_t d = 1; d < leading; ++d) per_sample *= part.sizes[d];
  const auto& queries = part.rows[leading];
  std::vector<RowPlace> places;
  places.reserve(static_cast<std::size_t>(shape.matrices * shape.queries));
  for (std::int64_t m = 0; m < shape.matrices; ++m) {
    std::int64_t matrix = 0, scale = 1, rest = m;
    for (std::size_t d = leading; d-- > 0;) {
      const auto count = static_cast<std::int64_t>(part.rows[d].size());
      matrix += part.rows[d][static_cast<std::size_t>(rest % count)] * scale;
      rest /= count;
      scale *= part.sizes[d];
    }
    RowPlace place;
    if (per_sample > 0) {
      place.sample = static_cast<std::uint32_t>(arguments.place.first_sample + matrix / per_sample);
      matrix %= per_sample;
    }
    for (const std::int64_t query : queries) {
      place.row = matrix * part.sizes[leading] + query;
      places.push_back(place);
    }
  }
  return places;
}

/// scores [matrices, queries, keys] -> signed probabilities in place; returns what multiplies the values.
at::Tensor run_forward_rows(const AttentionArguments& arguments, const Shape& shape, const at::Tensor& bias,
                            float scale, at::Tensor& scores) {
  at::Tensor dropped = at::empty_like(scores);
  float* score_data = scores.mutable_data_ptr<float>();
  float* dropped_data = dropped.mutable_data_ptr<float>();
  const float* bias_data = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  TORCH_CHECK(!bias_data || bias.stride(2) == 1 || shape.keys == 1, "attention mask with strided keys");
  // Rows are padded to whole groups, so that each starts a group of its own.
  const std::int64_t row_groups = (shape.keys + kWordGroup - 1) / kWordGroup;
  const std::vector<RowPlace> places = arguments.place.part ? part_rows(arguments, shape) : std::vector<RowPlace>();
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, shape.keys));
  at::parallel_for(0, shape.matrices * shape.queries, grain, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::uint32_t> words(static_cast<std::size_t>(row_groups * kWordGroup));
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t matrix = r / shape.queries, query = r % shape.queries;
      const bool has_samples = shape.matrices_per_sample > 0;
      auto sample = has_samples
                        ? static_cast<std::uint32_t>(arguments.place.first_sample + matrix / shape.matrices_per_sample)
                        : kNoSample;
      std::int64_t row_in_sample = (has_samples ? matrix % shape.matrices_per_sample : matrix) * shape.queries + query;
      if (!places.empty()) {
        sample = places[static_cast<std::size_t>(r)].sample;
        row_in_sample = places[static_cast<std::size_t>(r)].row;
      }
      SoftmaxRow row;
      row.length = shape.keys;
      row.visible = arguments.is_causal ? std::min(query + 1, shape.keys) : shape.keys;
      row.scale = scale;
      row.bias = bias_data ? bias_data + matrix * bias.stride(0) + query * bias.stride(1) : nullptr;
      random_words(arguments.stream, sample, row_in_sample * row_groups, (row.visible + kWordGroup - 1) / kWordGroup,
                   words.data());
      row.words = words.data();
      row.threshold = arguments.stream.threshold;
      row.keep_scale = arguments.stream.scale;
      softmax_dropout_row(row, score_data + r * shape.keys, dropped_data + r * shape.keys);
    }
  });
  return dropped;
}

struct AttentionBackward final : torch::autograd::Node {
  at::Tensor query, key, value;  // merged
  at::Tensor probabilities;      // signed; in the dtype of the query, as what is saved is
  std::vector<std::int64_t> query_sizes, key_sizes, value_sizes;
  float scale = 1, keep_scale = 1;
  bool runs_again = true;  // what it saved is asked for once more

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor(), at::Tensor(), at::Tensor()};
    TORCH_CHECK(probabilities.defined(), "attention's backward after its saved tensors were released");
    const at::Tensor output_gradient = merged(gradients[0]);
    gradients.clear();
    at::Tensor score_gradient = at::bmm(output_gradient, value.transpose(1, 2)).to(c10::ScalarType::Float);
    if (!runs_again) value.reset();
    // The saved matrix becomes what the second matmul took; in the last run nobody misses it.
    at::Tensor dropped = probabilities.to(c10::ScalarType::Float);
    if (runs_again && dropped.is_same(probabilities)) dropped = probabilities.clone();
    if (!runs_again) probabilities.reset();
    const std::int64_t keys = dropped.size(2), rows = dropped.size(0) * dropped.size(1);
    float* dropped_data = dropped.mutable_data_ptr<float>();
    float* gradient_data = score_gradient.mutable_data_ptr<float>();
    at::parallel_for(0, rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, keys)),
                     [&](std::int64_t begin, std::int64_t end) {
                       for (std::int64_t r = begin; r < end; ++r)
                         softmax_dropout_row_backward(keys, scale, keep_scale, dropped_data + r * keys,
                                                      gradient_data + r * keys);
                     });
    const c10::ScalarType type = output_gradient.scalar_type();
    score_gradient = score_gradient.to(type);
    at::Tensor value_gradient = at::bmm(dropped.to(type).transpose(1, 2), output_gradient).view(value_sizes);
    dropped.reset();
    at::Tensor query_gradient = at::bmm(score_gradient, key).view(query_sizes);
    at::Tensor key_gradient = at::bmm(score_gradient.transpose(1, 2), query).view(key_sizes);
    return {query_gradient, key_gradient, value_gradient};
  }
  void will_release_variables() override { runs_again = false; }
  void release_variables() override {
    query.reset();
    key.reset();
    value.reset();
    probabilities.reset();
  }
  std::string name() const override { return "CoxswainAttentionBackward"; }
};

at::Tensor repeat_heads(const at::Tensor& tensor, const at::Tensor& query) {
  if (query.dim() < 4 || tensor.size(-3) == query.size(-3)) return tensor;
  return at::repeat_interleave(tensor, query.size(-3) / tensor.size(-3), -3);
}

}  // namespace

at::Tensor dropout_attention(const AttentionArguments& given) {
  AttentionArguments arguments = given;
  arguments.key = repeat_heads(arguments.key, arguments.query);
  arguments.value = repeat_heads(arguments.value, arguments.query);
  const c10::ScalarType type = arguments.query.scalar_type();
  TORCH_CHECK(type == c10::ScalarType::Float || type == c10::ScalarType::BFloat16 || type == c10::ScalarType::Half,
              "attention with dropout takes float32, bfloat16 or float16, got ", type);
  const bool requires_grad = torch::autograd::compute_requires_grad(arguments.query, arguments.key, arguments.value);
  torch::autograd::edge_list edges;
  if (requires_grad) edges = torch::autograd::collect_next_edges(arguments.query, arguments.key, arguments.value);

  const at::NoGradGuard no_grad;
  const Shape shape = shape_of(arguments);
  const auto scale =
      static_cast<float>(arguments.scale.value_or(1.0 / std::sqrt(static_cast<double>(arguments.query.size(-1)))));
  const at::Tensor query = merged(arguments.query), key = merged(arguments.key), value = merged(arguments.value);
  const at::Tensor bias = arguments.mask.defined() ? additive_mask(arguments, shape) : at::Tensor();
  // Softmax is taken in float32; products and what is kept for backward are in the query's dtype.
  at::Tensor probabilities = at::bmm(query, key.transpose(1, 2)).to(c10::ScalarType::Float);
  at::Tensor dropped = run_forward_rows(arguments, shape, bias, scale, probabilities);
  std::vector<std::int64_t> sizes = arguments.query.sizes().vec();
  sizes.back() = value.size(-1);
  at::Tensor output = at::bmm(dropped.to(type), value).view(sizes);
  if (requires_grad || MadeTensors::wanted()) probabilities = probabilities.to(type);
  for (const at::Tensor* made : {&query, &key, &value, &std::as_const(probabilities)}) MadeTensors::add(*made);
  if (requires_grad) {
    auto node = c10::make_intrusive<AttentionBackward>();
    node->query = query.detach();
    node->key = key.detach();
    node->value = value.detach();
    node->probabilities = probabilities;
    node->query_sizes = arguments.query.sizes().vec();
    node->key_sizes = arguments.key.sizes().vec();
    node->value_sizes = arguments.value.sizes().vec();
    node->scale = scale;
    node->keep_scale = arguments.stream.scale;
    node->set_next_edges(std::move(edges));
    torch::autograd::set_history(output, node);
  }
  return output;
}

}  // namespace coxswain::worker
