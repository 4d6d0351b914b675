#include "worker/engine/sharded_storage.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "common/ensure.h"
#include "worker/engine/host_memory.h"
#include "worker/engine/tensor_types.h"
#include "worker/engine/transitions.h"

namespace coxswain::worker {
namespace {

// Every parameter and every piece starts on a cache line.
constexpr std::int64_t kAlignedElements = 16;
constexpr std::int64_t kFloatBytes = 4, kCopyBytes = 2;

std::int64_t elements_of(const model::Parameter& parameter) {
  std::int64_t count = 1;
  for (const std::int64_t dim : parameter.dims) count *= dim;
  return count;
}

std::int64_t aligned(std::int64_t count) {
  return (count + kAlignedElements - 1) / kAlignedElements * kAlignedElements;
}

/// Elements of another dtype in the memory of `bytes`.
at::Tensor view_as(const at::Tensor& bytes, DType dtype, std::int64_t first_byte, std::int64_t count) {
  at::Tensor view = at::empty({0}, options_of(dtype));
  return view.set_(bytes.storage(), first_byte / size_of(dtype).value, {count}, {1});
}

/// Its own version counter: writes of gathers and updates are no concern of a graph that has saved it.
at::Tensor make_leaf(const at::Tensor& of, const std::vector<std::int64_t>& dims) {
  return of.view(dims).variable_data().set_requires_grad(true);
}

void free_memory(const at::Tensor& tensor) {
  c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, tensor.device()));
  storage->set_nbytes(0);
}

void allocate_memory(const at::Tensor& tensor) {
  c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
  const auto bytes = static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
  storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

}  // namespace

std::vector<std::int64_t> piece_begins(std::int64_t count, int holders) {
  COX_ENSURE(holders >= 1 && count % kAlignedElements == 0, count, holders);
  const std::int64_t lines = count / kAlignedElements;
  std::vector<std::int64_t> begins;
  for (int r = 0; r <= holders; ++r) begins.push_back(lines * r / holders * kAlignedElements);
  return begins;
}

Result<ShardedStorage> ShardedStorage::make(const model::ModelGraph& graph, const WeightSource& weights,
                                            const std::vector<int>& parameters, Sharding sharding,
                                            plan::Precision precision, const LocalView* view, bool state_on_host) {
  const at::NoGradGuard no_grad;
  ShardedStorage storage;
  storage.sharding_ = std::move(sharding);
  storage.mixed_ = plan::is_mixed(precision);
  storage.half_ = plan::computed_dtype(precision);
  storage.lay_out(graph, parameters);
  const auto options = options_of(DType::Float32);
  const std::int64_t own = storage.end_ - storage.begin_;
  storage.values_ = at::zeros({storage.byte_of(storage.count_)}, options_of(DType::UInt8));
  // In float32 the piece of what is computed with is the master; not so where that comes and goes.
  if (storage.mixed_ || storage.sharding_.releases) {
    storage.masters_ = make_state(own, state_on_host && storage.mixed_);
  } else {
    storage.masters_ = storage.wide(storage.begin_, storage.end_);
  }
  storage.first_moment_ = make_state(own, state_on_host);
  storage.second_moment_ = make_state(own, state_on_host);
  // Under ZeRO 1 the piece is there from the reduction to the update, and the whole until then.
  if (storage.sharding_.zero_stage >= 2) storage.gradient_ = at::zeros({own}, options);
  storage.make_leaves();
  COX_TRY_VOID(storage.read_weights(graph, weights, parameters, view));
  if (storage.sharding_.releases) storage.release();
  return storage;
}

// First what is read as float32, then what is read as a 16-bit copy alone.
void ShardedStorage::lay_out(const model::ModelGraph& graph, const std::vector<int>& parameters) {
  entries_.resize(parameters.size());
  const auto is_wide = [&](std::size_t i) { return !mixed_ || sharding_.reads_master[i] != 0; };
  for (const bool wide : {true, false}) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (is_wide(i) != wide) continue;
      const model::Parameter& parameter = graph.parameters[parameters[i]];
      entries_[i].offset = count_;
      entries_[i].count = elements_of(parameter);
      entries_[i].dims = parameter.dims;
      count_ += aligned(entries_[i].count);
    }
    if (wide) wide_count_ = count_;
  }
  const std::vector<std::int64_t> begins = piece_begins(count_, sharding_.holders);
  for (int r = 0; r < sharding_.holders; ++r) {
    counts_.push_back(begins[r + 1] - begins[r]);
    byte_counts_.push_back(byte_of(begins[r + 1]) - byte_of(begins[r]));
  }
  begin_ = begins[sharding_.index];
  end_ = begins[sharding_.index + 1];
}

std::int64_t ShardedStorage::byte_of(std::int64_t element) const {
  const std::int64_t wide = std::min(element, wide_count_);
  return wide * kFloatBytes + (element - wide) * kCopyBytes;
}

std::int64_t ShardedStorage::own_byte() const { return byte_of(begin_); }

at::Tensor ShardedStorage::wide(std::int64_t begin, std::int64_t end) const {
  return view_as(values_, DType::Float32, byte_of(begin), end - begin);
}

at::Tensor ShardedStorage::narrow(std::int64_t begin, std::int64_t end) const {
  return view_as(values_, half_, byte_of(begin), end - begin);
}

void ShardedStorage::make_leaves() {
  std::int64_t both = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (mixed_ && sharding_.reads_master[i] != 0 && sharding_.reads_copy[i] != 0) both += aligned(entries_[i].count);
  if (both > 0) second_copies_ = at::zeros({both}, options_of(half_));
  std::int64_t at = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    const std::int64_t end = entry.offset + entry.count;
    if (entry.offset < wide_count_) {
      entry.leaf = make_leaf(wide(entry.offset, end), entry.dims);
      if (!mixed_ || sharding_.reads_copy[i] == 0) continue;
      entry.copy = make_leaf(second_copies_.narrow(0, at, entry.count), entry.dims);
      at += aligned(entry.count);
    } else {
      entry.copy = make_leaf(narrow(entry.offset, end), entry.dims);
    }
  }
}

Result<void> ShardedStorage::read_weights(const model::ModelGraph& graph, const WeightSource& weights,
                                          const std::vector<int>& parameters, const LocalView* view) {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const model::Parameter& parameter = (view ? *view->whole : graph).parameters[parameters[i]];
    COX_TRY(at::Tensor whole, weights.read_parameter_tensor(parameter));
    if (view && !view->cuts_of(parameter.value).empty()) whole = cut_tensor(whole, view->cuts_of(parameter.value));
    set_values(i, whole.contiguous().view({entry.count}));
  }
  finish_values();
  return {};
}

void ShardedStorage::set_values(std::size_t i, const at::Tensor& values) {
  const at::NoGradGuard no_grad;
  const Entry& entry = entries_[i];
  const std::int64_t end = entry.offset + entry.count;
  if (present_) (entry.offset < wide_count_ ? wide(entry.offset, end) : narrow(entry.offset, end)).copy_(values);
  const StateOfParameter state = state_of(i);
  if (state.values.numel() > 0) state.values.copy_(values.narrow(0, state.first, state.values.numel()));
}

void ShardedStorage::begin_step() {
  reduced_ = false;
  for (Entry& entry : entries_) entry.filled = false;
}

at::Tensor ShardedStorage::gradient_view(std::size_t i) const {
  const Entry& entry = entries_[i];
  return whole_gradient_.narrow(0, entry.offset, entry.count).view(entry.dims);
}

// A vector's gradient, which I may bring long before W brings the matrices', does not make room for all of them.
void ShardedStorage::add_gradient(std::size_t i, const at::Tensor& gradient) {
  if (sharding_.zero_stage >= 2 && !whole_gradient_.defined() && gradient.dim() <= 1) {
    at::Tensor& waiting = entries_[i].waiting;
    waiting = waiting.defined() ? waiting.add(gradient) : gradient.to(c10::ScalarType::Float);
    return;
  }
  if (!whole_gradient_.defined()) {
    if (last_use_) release();
    make_whole_gradient();
  }
  add_to_whole(i, gradient);
}

void ShardedStorage::add_to_whole(std::size_t i, const at::Tensor& gradient) {
  at::Tensor sum = gradient_view(i);
  if (entries_[i].filled) {
    sum.add_(gradient);
  } else {
    sum.copy_(gradient);
    entries_[i].filled = true;
  }
}

void ShardedStorage::make_whole_gradient() {
  whole_gradient_ = at::empty({count_}, options_of(DType::Float32));
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].waiting.defined()) add_to_whole(i, std::exchange(entries_[i].waiting, {}));
}

ShardedStorage::Scatter& ShardedStorage::begin_scatter() {
  const at::NoGradGuard no_grad;
  const auto options = options_of(DType::Float32);
  if (!whole_gradient_.defined()) make_whole_gradient();
  for (std::size_t i = 0; i < entries_.size(); ++i)
    if (!entries_[i].filled) gradient_view(i).zero_();
  // Between parameters nothing was written.
  for (const Entry& entry : entries_)
    if (const std::int64_t end = entry.offset + entry.count; aligned(entry.count) > entry.count)
      whole_gradient_.narrow(0, end, aligned(entry.count) - entry.count).zero_();
  scatter_ = {std::move(whole_gradient_), at::empty({end_ - begin_}, options)};
  whole_gradient_.reset();
  for (Entry& entry : entries_) entry.filled = false;
  return scatter_;
}

void ShardedStorage::end_scatter() {
  const at::NoGradGuard no_grad;
  if (sharding_.zero_stage < 2) {
    gradient_ = std::move(scatter_.piece);
  } else if (reduced_) {
    gradient_.add_(scatter_.piece);
  } else {
    gradient_.copy_(scatter_.piece);
  }
  reduced_ = true;
  scatter_ = {};
}

const at::Tensor& ShardedStorage::gradient() {
  if (!reduced_) {
    if (!gradient_.defined()) gradient_ = at::empty({end_ - begin_}, options_of(DType::Float32));
    gradient_.zero_();
    reduced_ = true;
  }
  return gradient_;
}

void ShardedStorage::end_update() {
  if (sharding_.zero_stage < 2) gradient_.reset();
}

void ShardedStorage::write_own_values() {
  if (!mixed_ && !sharding_.releases) return;  // the masters are those values
  const std::int64_t middle = std::clamp(wide_count_, begin_, end_);
  if (begin_ < middle) wide(begin_, middle).copy_(masters_.narrow(0, 0, middle - begin_));
  if (middle < end_) narrow(middle, end_).copy_(masters_.narrow(0, middle - begin_, end_ - middle));
}

void ShardedStorage::fill_second_copies() {
  if (!present_) return;
  for (const Entry& entry : entries_)
    if (entry.leaf.defined() && entry.copy.defined()) entry.copy.variable_data().copy_(entry.leaf.variable_data());
}

const at::Tensor& ShardedStorage::begin_gather() {
  const at::NoGradGuard no_grad;
  if (!present_) {
    allocate_memory(values_);
    if (second_copies_.defined()) allocate_memory(second_copies_);
    present_ = true;
  }
  write_own_values();
  return values_;
}

void ShardedStorage::end_gather() {
  const at::NoGradGuard no_grad;
  fill_second_copies();
}

void ShardedStorage::release() {
  if (!sharding_.releases || !present_) return;
  free_memory(values_);
  if (second_copies_.defined()) free_memory(second_copies_);
  present_ = false;
}

StateOfParameter ShardedStorage::state_of(std::size_t i) const {
  const Entry& entry = entries_[i];
  const std::int64_t first = std::clamp(entry.offset, begin_, end_);
  const std::int64_t count = std::max<std::int64_t>(std::min(end_, entry.offset + entry.count) - first, 0);
  const auto own = [&](const at::Tensor& all) { return all.narrow(0, first - begin_, count); };
  return {count > 0 ? first - entry.offset : 0, own(masters_), own(first_moment_), own(second_moment_)};
}

}  // namespace coxswain::worker
