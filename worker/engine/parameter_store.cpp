#include "worker/engine/parameter_store.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "worker/engine/caching_allocator.h"
#include "worker/engine/tensor_types.h"

namespace coxswain::worker {
namespace {

// Every parameter starts on a cache line.
constexpr std::int64_t kAlignedElements = 16;
// Partial sums are of this many elements, whatever the number of threads.
constexpr std::int64_t kNormChunk = 65536;

std::int64_t elements_of(const model::Parameter& parameter) {
  std::int64_t count = 1;
  for (const std::int64_t dim : parameter.dims) count *= dim;
  return count;
}

Result<at::Tensor> make_gradient(const StorageSpec& spec, std::int64_t count, std::shared_ptr<void>& foreign) {
  const auto options = options_of(DType::Float32);
  if (!spec.allocate_gradient || count == 0) return at::zeros({count}, options);
  const Bytes bytes = size_of(DType::Float32) * count;
  COX_TRY(foreign, spec.allocate_gradient(bytes));
  count_foreign_memory(bytes);
  // The count lives as long as the memory.
  foreign = std::shared_ptr<void>(foreign.get(), [inner = foreign, bytes](void*) mutable {
    inner.reset();
    count_foreign_memory(Bytes(-bytes.value));
  });
  at::Tensor gradient = at::from_blob(foreign.get(), {count}, options);
  gradient.zero_();
  return gradient;
}

double sum_of_squares(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  const std::int64_t count = tensor.numel(), num_chunks = (count + kNormChunk - 1) / kNormChunk;
  std::vector<double> partial(static_cast<std::size_t>(num_chunks));
  at::parallel_for(0, num_chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) {
      // Several sums side by side, so that additions need not wait for each other.
      double sums[8] = {};
      const std::int64_t first = c * kNormChunk, last = std::min(count, first + kNormChunk);
      std::int64_t i = first;
      for (; i + 8 <= last; i += 8)
        for (int lane = 0; lane < 8; ++lane)
          sums[lane] += static_cast<double>(data[i + lane]) * static_cast<double>(data[i + lane]);
      for (; i < last; ++i) sums[0] += static_cast<double>(data[i]) * static_cast<double>(data[i]);
      for (const double sum : sums) partial[c] += sum;
    }
  });
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}

}  // namespace

Result<ParameterStore> ParameterStore::make(const model::ModelGraph& graph, const WeightSource& weights,
                                            std::vector<StorageSpec> specs, bool with_optimizer,
                                            plan::Precision precision) {
  const at::NoGradGuard no_grad;
  ParameterStore store;
  store.slot_of_.assign(graph.parameters.size(), -1);
  for (StorageSpec& spec : specs) {
    std::int64_t count = 0;
    std::vector<std::int64_t> offsets;
    for (const int p : spec.parameters) {
      const model::Parameter& parameter = graph.parameters[p];
      if (parameter.dtype != DType::Float32) {
        return Error{ErrorCode::Unimplemented,
                     "a parameter that is not float32 cannot be trained in this version",
                     parameter.name,
                     "float32",
                     std::string(to_text(parameter.dtype)),
                     "export the model in float32"};
      }
      offsets.push_back(count);
      count += (elements_of(parameter) + kAlignedElements - 1) / kAlignedElements * kAlignedElements;
    }
    Storage storage;
    storage.in_norm = spec.in_norm;
    const auto options = options_of(DType::Float32);
    storage.values = at::zeros({count}, options);
    if (precision == plan::Precision::BFloat16) storage.copies = at::zeros({count}, options_of(DType::BFloat16));
    COX_TRY(storage.gradient, make_gradient(spec, count, storage.foreign));
    if (with_optimizer) {
      storage.first_moment = at::zeros({count}, options);
      storage.second_moment = at::zeros({count}, options);
    }
    for (std::size_t i = 0; i < spec.parameters.size(); ++i) {
      const model::Parameter& parameter = graph.parameters[spec.parameters[i]];
      COX_TRY_VOID(weights.read_parameter(parameter, storage.values.mutable_data_ptr<float>() + offsets[i]));
      const std::int64_t length = elements_of(parameter);
      Slot slot;
      // Its own version counter: the optimizer's writes are no concern of a finished graph.
      const auto make_leaf = [&](const at::Tensor& of) {
        return of.narrow(0, offsets[i], length).view(parameter.dims).variable_data().set_requires_grad(true);
      };
      slot.leaf = make_leaf(storage.values);
      if (storage.copies.defined()) slot.copy = make_leaf(storage.copies);
      slot.gradient = storage.gradient.narrow(0, offsets[i], length).view(parameter.dims);
      storage.slots.push_back(static_cast<int>(store.slots_.size()));
      store.slot_of_[spec.parameters[i]] = static_cast<int>(store.slots_.size());
      store.slots_.push_back(std::move(slot));
    }
    if (storage.copies.defined()) storage.copies.copy_(storage.values);
    store.storages_.push_back(std::move(storage));
  }
  return store;
}

void ParameterStore::begin_step() {
  for (Slot& slot : slots_) slot.filled = false;
}

void ParameterStore::add_gradient(int parameter, const at::Tensor& gradient) {
  Slot& slot = slots_[slot_of_[parameter]];
  if (slot.filled) {
    slot.gradient.add_(gradient);
  } else {
    slot.gradient.copy_(gradient);
    slot.filled = true;
  }
}

void ParameterStore::complete_gradient(int storage) {
  for (const int s : storages_[storage].slots) {
    if (!slots_[s].filled) slots_[s].gradient.zero_();
    slots_[s].filled = true;
  }
}

double ParameterStore::squared_norm() const {
  double total = 0;
  for (const Storage& storage : storages_)
    if (storage.in_norm) total += sum_of_squares(storage.gradient);
  return total;
}

void ParameterStore::update(const OptimizerSettings& optimizer, double learning_rate, double gradient_scale,
                            std::int64_t step) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values, gradients, first, second, steps;
  const auto options = options_of(DType::Float32);
  for (Storage& storage : storages_) {
    if (storage.values.numel() == 0) continue;
    values.push_back(storage.values);
    gradients.push_back(storage.gradient);
    first.push_back(storage.first_moment);
    second.push_back(storage.second_moment);
    steps.push_back(at::full({}, static_cast<double>(step), options));
  }
  if (values.empty()) return;
  // The kernel divides by the scale while it reads, which saves a pass.
  std::optional<at::Tensor> divisor;
  if (gradient_scale != 1.0) divisor = at::full({}, 1.0 / gradient_scale, options);
  at::_fused_adamw_(values, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps, learning_rate, optimizer.beta1,
                    optimizer.beta2, optimizer.weight_decay, optimizer.epsilon, /*amsgrad=*/false, /*maximize=*/false,
                    divisor, std::nullopt);
  for (Storage& storage : storages_)
    if (storage.copies.defined()) storage.copies.copy_(storage.values);
}

std::int64_t ParameterStore::num_elements() const {
  std::int64_t count = 0;
  for (const Storage& storage : storages_) count += storage.values.numel();
  return count;
}

}  // namespace coxswain::worker
