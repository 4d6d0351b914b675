#include "worker/engine/parameter_store.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "plan/layout/held_rows.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/host_memory.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/transitions.h"

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

std::int64_t padded(std::int64_t elements) {
  return (elements + kAlignedElements - 1) / kAlignedElements * kAlignedElements;
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

Result<void> check_dtypes(const model::ModelGraph& graph, const StorageSpec& spec) {
  for (const int p : spec.parameters) {
    const model::Parameter& parameter = graph.parameters[p];
    if (parameter.dtype == DType::Float32) continue;
    return Error{ErrorCode::Unimplemented,
                 "a parameter that is not float32 cannot be trained in this version",
                 parameter.name,
                 "float32",
                 std::string(to_text(parameter.dtype)),
                 "export the model in float32"};
  }
  return {};
}

}  // namespace

// Where the copies of a parameter begin among all of them, `copied` so far; -1: it has none.
std::int64_t ParameterStore::add_copy(std::vector<CopyRun>& runs, bool has_copy, std::int64_t offset,
                                      std::int64_t elements, std::int64_t& copied) {
  if (!has_copy) return -1;
  const bool follows = !runs.empty() && runs.back().offset + runs.back().count == offset;
  if (!follows) runs.push_back({offset, copied, 0});
  runs.back().count += elements;
  return std::exchange(copied, copied + elements);
}

Result<ParameterStore> ParameterStore::make(const model::ModelGraph& graph, const WeightSource& weights,
                                            std::vector<StorageSpec> specs, bool with_optimizer,
                                            plan::Precision precision, const LocalView* view, bool state_on_host) {
  const at::NoGradGuard no_grad;
  const ExactSizes exact;
  ParameterStore store;
  store.slot_of_.assign(graph.parameters.size(), -1);
  for (StorageSpec& spec : specs) {
    COX_TRY_VOID(check_dtypes(graph, spec));
    if (spec.sharding.zero_stage > 0) {
      COX_TRY(ShardedStorage sharded,
              ShardedStorage::make(graph, weights, spec.parameters, spec.sharding, precision, view, state_on_host));
      store.add_sharded(std::move(spec), std::move(sharded));
      continue;
    }
    Storage storage;
    std::int64_t count = 0, copied = 0, wide = 0;
    std::vector<std::int64_t> offsets, copy_offsets, wide_offsets;
    const bool masters_on_host = state_on_host && plan::is_mixed(precision);
    for (std::size_t i = 0; i < spec.parameters.size(); ++i) {
      const model::Parameter& parameter = graph.parameters[spec.parameters[i]];
      const std::int64_t elements = padded(elements_of(parameter));
      const bool is_copied = std::count(spec.copied.begin(), spec.copied.end(), spec.parameters[i]) > 0;
      copy_offsets.push_back(add_copy(storage.copy_runs, is_copied, count, elements, copied));
      const bool is_wide =
          masters_on_host && (spec.sharding.reads_master.empty() || spec.sharding.reads_master[i] != 0);
      wide_offsets.push_back(add_copy(storage.wide_runs, is_wide, count, elements, wide));
      offsets.push_back(count);
      count += elements;
    }
    storage.in_norm = spec.in_norm;
    const auto options = options_of(DType::Float32);
    storage.values = make_state(count, masters_on_host);
    if (wide > 0) storage.wide = at::zeros({wide}, options);
    if (plan::is_mixed(precision) && copied > 0)
      storage.copies = at::zeros({copied}, options_of(plan::computed_dtype(precision)));
    COX_TRY(storage.gradient, make_gradient(spec, count, storage.foreign));
    if (with_optimizer) {
      storage.first_moment = make_state(count, state_on_host);
      storage.second_moment = make_state(count, state_on_host);
    }
    for (std::size_t i = 0; i < spec.parameters.size(); ++i) {
      const model::Parameter& parameter = graph.parameters[spec.parameters[i]];
      const model::Parameter& whole = view ? view->whole->parameters[spec.parameters[i]] : parameter;
      const std::int64_t length = elements_of(parameter);
      Slot slot;
      slot.sum_offset = storage.sum_elements;
      storage.sum_elements += padded(elements_of(whole));
      if (view && !view->cuts_of(parameter.value).empty()) {
        const auto cuts = view->cuts_of(parameter.value);
        slot.whole_sizes = whole.dims;
        slot.rows = runs_of(plan::held_rows(whole.dims, cuts));
        COX_TRY(const at::Tensor values, weights.read_parameter_tensor(whole));
        storage.values.narrow(0, offsets[i], length).view(parameter.dims).copy_(cut_tensor(values, cuts));
      } else {
        COX_TRY_VOID(weights.read_parameter(whole, storage.values.mutable_data_ptr<float>() + offsets[i]));
      }
      slot.in_norm = std::count(spec.not_in_norm.begin(), spec.not_in_norm.end(), spec.parameters[i]) == 0;
      storage.counts_all = storage.counts_all && slot.in_norm;
      // Its own version counter: the optimizer's writes are no concern of a finished graph.
      const auto make_leaf = [&](const at::Tensor& of, std::int64_t offset) {
        return of.narrow(0, offset, length).view(parameter.dims).variable_data().set_requires_grad(true);
      };
      if (!masters_on_host) slot.leaf = make_leaf(storage.values, offsets[i]);
      if (wide_offsets[i] >= 0) slot.leaf = make_leaf(storage.wide, wide_offsets[i]);
      slot.offset = offsets[i];
      slot.count = length;
      if (storage.copies.defined() && copy_offsets[i] >= 0) slot.copy = make_leaf(storage.copies, copy_offsets[i]);
      slot.gradient = storage.gradient.narrow(0, offsets[i], length).view(parameter.dims);
      slot.storage = static_cast<int>(store.storages_.size());
      slot.position = static_cast<int>(i);
      storage.slots.push_back(static_cast<int>(store.slots_.size()));
      store.slot_of_[spec.parameters[i]] = static_cast<int>(store.slots_.size());
      store.slots_.push_back(std::move(slot));
    }
    storage.make_copies();
    store.storages_.push_back(std::move(storage));
  }
  return store;
}

void ParameterStore::add_sharded(StorageSpec spec, ShardedStorage sharded) {
  Storage storage;
  storage.in_norm = spec.in_norm;
  storage.sharded = std::make_unique<ShardedStorage>(std::move(sharded));
  for (std::size_t i = 0; i < spec.parameters.size(); ++i) {
    Slot slot;
    slot.leaf = storage.sharded->leaf(i);
    slot.copy = storage.sharded->copy(i);
    slot.storage = static_cast<int>(storages_.size());
    slot.position = static_cast<int>(i);
    slot_of_[spec.parameters[i]] = static_cast<int>(slots_.size());
    slots_.push_back(std::move(slot));
  }
  storages_.push_back(std::move(storage));
}

void ParameterStore::begin_step() {
  for (Slot& slot : slots_) slot.filled = false;
  for (Storage& storage : storages_)
    if (storage.sharded) storage.sharded->begin_step();
}

void ParameterStore::add_gradient(int parameter, const at::Tensor& gradient) {
  Slot& slot = slots_[slot_of_[parameter]];
  if (ShardedStorage* sharded = storages_[slot.storage].sharded.get()) {
    sharded->add_gradient(static_cast<std::size_t>(slot.position), gradient);
  } else if (slot.filled) {
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

StateOfParameter ParameterStore::state_of(int parameter) const {
  const Slot& slot = slots_[slot_of_[parameter]];
  const Storage& storage = storages_[slot.storage];
  if (storage.sharded) return storage.sharded->state_of(static_cast<std::size_t>(slot.position));
  const auto own = [&](const at::Tensor& all) { return all.narrow(0, slot.offset, slot.count); };
  return {0, own(storage.values), own(storage.first_moment), own(storage.second_moment)};
}

void ParameterStore::set_values(int parameter, const at::Tensor& values) {
  const Slot& slot = slots_[slot_of_[parameter]];
  Storage& storage = storages_[slot.storage];
  if (storage.sharded)
    storage.sharded->set_values(static_cast<std::size_t>(slot.position), values);
  else
    storage.values.narrow(0, slot.offset, slot.count).copy_(values);
}

void ParameterStore::finish_values() {
  for (Storage& storage : storages_) {
    storage.make_copies();
    if (storage.sharded) storage.sharded->finish_values();
  }
}

at::Tensor ParameterStore::whole_of(const Slot& slot, const at::Tensor& sum) {
  const at::IntArrayRef sizes = slot.rows.empty() ? slot.gradient.sizes() : at::IntArrayRef(slot.whole_sizes);
  std::int64_t count = 1;
  for (const std::int64_t size : sizes) count *= size;
  return sum.narrow(0, slot.sum_offset, count).view(sizes);
}

at::Tensor ParameterStore::prepare_sum(int index) {
  Storage& storage = storages_[index];
  const bool whole =
      std::all_of(storage.slots.begin(), storage.slots.end(), [&](int s) { return slots_[s].rows.empty(); });
  if (whole) return storage.gradient;
  storage.sum = at::zeros({storage.sum_elements}, storage.gradient.options());
  for (const int s : storage.slots) {
    const at::Tensor target = whole_of(slots_[s], storage.sum);
    put_boxes(target, slots_[s].rows, slots_[s].gradient, false);
  }
  return storage.sum;
}

void ParameterStore::finish_sum(int index) {
  Storage& storage = storages_[index];
  if (!storage.sum.defined()) return;
  for (const int s : storage.slots) take_boxes(whole_of(slots_[s], storage.sum), slots_[s].rows, slots_[s].gradient);
  storage.sum.reset();
}

double ParameterStore::squared_norm() {
  double total = 0;
  for (Storage& storage : storages_) {
    if (!storage.in_norm) continue;
    if (storage.sharded) {
      total += sum_of_squares(storage.sharded->gradient());
    } else if (storage.counts_all) {
      total += sum_of_squares(storage.gradient);
    } else {
      for (const int s : storage.slots)
        if (slots_[s].in_norm) total += sum_of_squares(slots_[s].gradient);
    }
  }
  return total;
}

void ParameterStore::update(const OptimizerSettings& optimizer, double learning_rate, double gradient_scale,
                            std::int64_t step) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> values, gradients, first, second, steps;
  const auto options = options_of(DType::Float32);
  for (Storage& storage : storages_) {
    ShardedStorage* const piece = storage.sharded.get();
    if ((piece ? piece->masters() : storage.values).numel() == 0) continue;
    values.push_back(piece ? piece->masters() : storage.values);
    gradients.push_back(piece ? piece->gradient() : storage.gradient);
    first.push_back(piece ? piece->first_moment() : storage.first_moment);
    second.push_back(piece ? piece->second_moment() : storage.second_moment);
    steps.push_back(at::full({}, static_cast<double>(step), options));
  }
  if (values.empty()) return;
  // The kernel divides by the scale while it reads, which saves a pass.
  std::optional<at::Tensor> divisor;
  if (gradient_scale != 1.0) divisor = at::full({}, 1.0 / gradient_scale, options);
  at::_fused_adamw_(values, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps, learning_rate, optimizer.beta1,
                    optimizer.beta2, optimizer.weight_decay, optimizer.epsilon, /*amsgrad=*/false, /*maximize=*/false,
                    divisor, std::nullopt);
  for (Storage& storage : storages_) {
    storage.make_copies();
    if (storage.sharded) storage.sharded->end_update();
  }
}

void ParameterStore::Storage::make_copies() {
  const auto fill = [&](const at::Tensor& of, const std::vector<CopyRun>& runs) {
    if (!of.defined()) return;
    for (const CopyRun& run : runs)
      of.narrow(0, run.copy_offset, run.count).copy_(values.narrow(0, run.offset, run.count));
  };
  fill(copies, copy_runs);
  fill(wide, wide_runs);
}

std::int64_t ParameterStore::num_elements() const {
  std::int64_t count = 0;
  for (const Storage& storage : storages_)
    count += storage.sharded ? storage.sharded->num_elements() : storage.values.numel();
  return count;
}

}  // namespace coxswain::worker
