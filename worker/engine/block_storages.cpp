#include "worker/engine/block_storages.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "common/ensure.h"

namespace coxswain::worker {
namespace {

thread_local MadeTensors* current_made = nullptr;

const c10::StorageImpl* key_of(const at::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

void empty(const c10::Storage& storage) {
  auto* inside = storage.unsafeGetStorageImpl();
  inside->set_data_ptr_noswap(c10::DataPtr(nullptr, inside->device()));
}

/// The contents of `fresh` become those of `storage`; the result is `fresh` on that storage.
at::Tensor refill(const c10::Storage& storage, const at::Tensor& fresh) {
  c10::StorageImpl* from = fresh.storage().unsafeGetStorageImpl();
  COX_ENSURE(from->nbytes() == storage.nbytes(), from->nbytes(), storage.nbytes());
  storage.unsafeGetStorageImpl()->set_data_ptr_noswap(from->set_data_ptr(c10::DataPtr(nullptr, from->device())));
  return at::empty({0}, fresh.options()).set_(storage, fresh.storage_offset(), fresh.sizes(), fresh.strides());
}

}  // namespace

MadeTensors::MadeTensors() : outer_(current_made) { current_made = this; }
MadeTensors::~MadeTensors() { current_made = outer_; }
bool MadeTensors::wanted() { return current_made != nullptr; }
void MadeTensors::add(const at::Tensor& tensor) {
  if (current_made != nullptr) current_made->tensors_.push_back(tensor.detach());
}

KeepingRun::KeepingRun(const model::ModelGraph& graph, Segment& segment, std::vector<at::Tensor>& locals, bool collect)
    : graph_(graph), segment_(segment), locals_(locals), collect_(collect) {
  // Constants, parameters, what the block receives.
  for (const at::Tensor& tensor : locals)
    if (tensor.defined()) foreign_.insert(key_of(tensor));
  for (const model::ValueId v : segment.held)
    if (locals[v].defined()) result_.held.emplace_back(v, locals[v].detach());
}

void KeepingRun::note(std::size_t call, int index, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.storage().nbytes() == 0) return;
  const Key key = key_of(tensor);
  if (foreign_.count(key) > 0 || entries_.count(key) > 0) return;
  entries_.emplace(key, Entry{{static_cast<int>(call), index, tensor.storage()}, segment_.again[call] != 0, 0});
  order_.push_back(key);
}

// The forward has no tensor of it any more: emptied, left to the graph, or forgotten where no graph holds it.
void KeepingRun::settle(Key key) {
  Entry& entry = entries_.at(key);
  if (entry.holders > 0) return;
  const bool held = entry.storage.storage.use_count() > 1;
  if (held && !entry.again && collect_) return;
  if (held && entry.again) {
    empty(entry.storage.storage);
    result_.emptied.push_back(std::move(entry.storage));
  }
  entries_.erase(key);
  order_.erase(std::find(order_.begin(), order_.end(), key));
}

void KeepingRun::run_call(std::size_t i, const RunMode& mode) {
  OpCall& call = segment_.code.calls[i];
  const std::vector<model::ValueId>& outputs = graph_.ops[call.op()].outputs;
  std::vector<Key> beside;
  {
    MadeTensors made;
    call.run(locals_, mode);
    const std::vector<at::Tensor> tensors = made.take();
    for (std::size_t o = 0; o < outputs.size(); ++o)
      if (outputs[o] >= 0) note(i, static_cast<int>(o), locals_[outputs[o]]);
    const std::size_t first = order_.size();
    for (std::size_t t = 0; t < tensors.size(); ++t) note(i, static_cast<int>(outputs.size() + t), tensors[t]);
    beside.assign(order_.begin() + static_cast<std::ptrdiff_t>(first), order_.end());
  }
  for (const model::ValueId v : outputs) {
    if (v < 0 || !locals_[v].defined()) continue;
    if (const auto found = entries_.find(key_of(locals_[v])); found != entries_.end()) ++found->second.holders;
    if (segment_.again[i] == 0 && std::binary_search(segment_.held.begin(), segment_.held.end(), v))
      result_.held.emplace_back(v, locals_[v].detach());
  }
  for (const Key key : beside) settle(key);
  for (const model::ValueId v : segment_.code.releases[i]) {
    if (!locals_[v].defined()) continue;
    const Key key = key_of(locals_[v]);
    locals_[v].reset();
    const auto found = entries_.find(key);
    if (found == entries_.end()) continue;
    --found->second.holders;
    settle(key);
  }
}

BlockStorages KeepingRun::take() {
  for (const Key key : order_) {
    Entry& entry = entries_.at(key);
    if (collect_ && !entry.again && entry.holders == 0 && entry.storage.storage.use_count() > 1)
      result_.kept.push_back(std::move(entry.storage.storage));
  }
  return std::move(result_);
}

void run_again(const model::ModelGraph& graph, Segment& segment, std::vector<at::Tensor>& locals, const RunMode& mode,
               BlockStorages storages) {
  const at::NoGradGuard no_grad;
  for (auto& [v, tensor] : storages.held) locals[v] = std::move(tensor);
  auto next = storages.emptied.begin();
  std::sort(storages.emptied.begin(), storages.emptied.end(), [](const EmptiedStorage& a, const EmptiedStorage& b) {
    return std::pair(a.call, a.index) < std::pair(b.call, b.index);
  });
  for (std::size_t i = 0; i < segment.code.calls.size(); ++i) {
    if (segment.again[i] == 0) continue;
    OpCall& call = segment.code.calls[i];
    const auto& outputs = graph.ops[call.op()].outputs;
    MadeTensors made;
    call.run(locals, mode);
    const std::vector<at::Tensor> beside = made.take();
    for (; next != storages.emptied.end() && next->call == static_cast<int>(i); ++next) {
      const auto index = static_cast<std::size_t>(next->index);
      if (index < outputs.size()) {
        locals[outputs[index]] = refill(next->storage, locals[outputs[index]]);
      } else {
        static_cast<void>(refill(next->storage, beside.at(index - outputs.size())));
      }
      next->storage = c10::Storage();
    }
    for (const model::ValueId v : segment.again_releases[i]) locals[v].reset();
  }
}

}  // namespace coxswain::worker
