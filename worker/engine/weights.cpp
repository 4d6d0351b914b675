#include "worker/engine/weights.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/philox.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

Result<float> scale_of(const model::ModelGraph& graph, const model::Parameter& parameter) {
  const int num_layers = std::max(1, graph.num_blocks() - 2);  // prologue and epilogue are always there
  if (parameter.init == "normal") return static_cast<float>(graph.initializer_range);
  if (parameter.init == "residual") return static_cast<float>(graph.initializer_range / std::sqrt(2.0 * num_layers));
  return Error{ErrorCode::InvalidArgument,      "unknown initialisation", parameter.name,
               "normal, residual, zero or one", parameter.init,           ""};
}

}  // namespace

void fill_normal(std::uint64_t seed, const std::string& name, float scale, std::int64_t count, float* target) {
  const auto key = make_philox_key(seed, ("init:" + name).c_str());
  for (std::int64_t i = 0; i * 4 < count; ++i) {
    const auto words = philox4x32(key, {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), 0, 0});
    double normals[4];
    for (int pair = 0; pair < 2; ++pair) {
      // 1 - u lies in (0, 1], where the logarithm is finite.
      const double radius = std::sqrt(-2.0 * std::log(1.0 - static_cast<double>(uniform_from(words[2 * pair]))));
      const double angle = 2.0 * std::numbers::pi * static_cast<double>(uniform_from(words[2 * pair + 1]));
      normals[2 * pair] = radius * std::cos(angle);
      normals[2 * pair + 1] = radius * std::sin(angle);
    }
    const std::int64_t here = std::min<std::int64_t>(4, count - i * 4);
    for (std::int64_t j = 0; j < here; ++j)
      target[i * 4 + j] = static_cast<float>(normals[j] * static_cast<double>(scale));
  }
}

Result<WeightSource> WeightSource::open(const model::ModelGraph& graph, std::uint64_t seed) {
  WeightSource source(graph, seed);
  const auto stored = [](const auto& item) { return item.weights.has_value(); };
  const bool any = std::any_of(graph.parameters.begin(), graph.parameters.end(), stored) ||
                   std::any_of(graph.buffers.begin(), graph.buffers.end(), stored);
  if (any) {
    COX_TRY(auto file, model::WeightFile::open(graph.source_file));
    source.file_ = std::move(file);
  }
  return source;
}

Result<at::Tensor> WeightSource::read(const model::WeightLocation& location, const std::vector<std::int64_t>& dims,
                                      DType dtype) const {
  std::int64_t last = location.storage_offset;
  std::int64_t count = 1;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    count *= dims[i];
    last += (dims[i] - 1) * location.strides[i];
  }
  if (count == 0) return at::empty(dims, options_of(dtype));
  COX_TRY(const std::byte* first, file_->at(location, size_of(dtype) * (last + 1)));
  // Borrowed, read-only and perhaps not aligned for vector loads: copied at once.
  auto* elements = const_cast<std::byte*>(first) + (size_of(dtype) * location.storage_offset).value;
  return at::from_blob(elements, dims, location.strides, options_of(dtype)).clone(c10::MemoryFormat::Contiguous);
}

Result<at::Tensor> WeightSource::read_parameter_tensor(const model::Parameter& parameter) const {
  if (parameter.weights) return read(*parameter.weights, parameter.dims, parameter.dtype);
  at::Tensor tensor = at::empty(parameter.dims, options_of(DType::Float32));
  COX_TRY_VOID(read_parameter(parameter, tensor.mutable_data_ptr<float>()));
  return tensor.to(scalar_type_of(parameter.dtype));
}

Result<void> WeightSource::read_parameter(const model::Parameter& parameter, float* target) const {
  std::int64_t count = 1;
  for (const std::int64_t dim : parameter.dims) count *= dim;
  if (parameter.weights) {
    COX_TRY(const at::Tensor stored, read(*parameter.weights, parameter.dims, parameter.dtype));
    const at::Tensor values = stored.to(c10::ScalarType::Float);
    std::copy_n(values.const_data_ptr<float>(), count, target);
    return {};
  }
  if (parameter.init == "zero" || parameter.init == "one") {
    std::fill_n(target, count, parameter.init == "one" ? 1.0F : 0.0F);
    return {};
  }
  COX_TRY(const float scale, scale_of(*graph_, parameter));
  fill_normal(seed_, parameter.name, scale, count, target);
  return {};
}

Result<at::Tensor> WeightSource::read_buffer(const model::Buffer& buffer) const {
  if (buffer.weights) return read(*buffer.weights, buffer.dims, buffer.dtype);
  if (!buffer.content) {
    return Error{ErrorCode::InvalidArgument,
                 "a buffer without content",
                 buffer.name,
                 "elements in the model file or in the graph",
                 "neither",
                 ""};
  }
  at::Tensor values = at::empty(buffer.dims, options_of(DType::Float64));
  std::copy(buffer.content->begin(), buffer.content->end(), values.mutable_data_ptr<double>());
  return values.to(scalar_type_of(buffer.dtype));
}

}  // namespace coxswain::worker
