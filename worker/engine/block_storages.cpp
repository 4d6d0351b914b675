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

void drop_contents(const c10::Storage& storage) {
  c10::StorageImpl* inside = storage.unsafeGetStorageImpl();
  inside->set_data_ptr_noswap(c10::DataPtr(nullptr, inside->device()));
}

void move_contents(const c10::Storage& from, const c10::Storage& to) {
  COX_ENSURE(from.nbytes() == to.nbytes(), from.nbytes(), to.nbytes());
  c10::StorageImpl* inside = from.unsafeGetStorageImpl();
  to.unsafeGetStorageImpl()->set_data_ptr_noswap(inside->set_data_ptr(c10::DataPtr(nullptr, inside->device())));
}

/// What `tensor` is of its storage, of another one.
at::Tensor on_storage(const c10::Storage& storage, const at::Tensor& tensor) {
  return at::empty({0}, tensor.options()).set_(storage, tensor.storage_offset(), tensor.sizes(), tensor.strides());
}

/// A tensor of the replay as the forward had it.
void require_grad(const model::ModelGraph& graph, model::ValueId value, at::Tensor& tensor) {
  if (tensor.defined() && graph.values[value].requires_grad && tensor.is_floating_point())
    tensor.set_requires_grad(true);
}

}  // namespace

MadeTensors::MadeTensors() : outer_(current_made) { current_made = this; }
MadeTensors::~MadeTensors() { current_made = outer_; }
bool MadeTensors::wanted() { return current_made != nullptr; }
void MadeTensors::add(const at::Tensor& tensor) {
  if (current_made != nullptr) current_made->tensors_.push_back(tensor.detach());
}

KeepingRun::KeepingRun(const model::ModelGraph& graph, Segment& segment, std::vector<at::Tensor>& locals,
                       const StorageSet& resident, bool collect)
    : graph_(graph), segment_(segment), locals_(locals), resident_(resident), collect_(collect) {
  for (const model::ValueId v : segment.inputs) {
    if (!locals[v].defined()) continue;
    received_.insert(key_of(locals[v]));
    addresses_.push_back(locals[v].storage().getWeakStorageImpl());
  }
  for (const model::ValueId v : segment.held)
    if (locals[v].defined()) result_.held.emplace_back(v, locals[v].detach());
}

void KeepingRun::note(std::size_t call, int index, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.storage().nbytes() == 0) return;
  const Key key = key_of(tensor);
  if (resident_.count(key) > 0 || received_.count(key) > 0 || entries_.count(key) > 0) return;
  entries_.emplace(key, Entry{{static_cast<int>(call), index, tensor.storage()}, runs_again(call), 0});
  order_.push_back(key);
}

// The forward has no tensor of it any more: emptied, left to the graph, or forgotten where no graph holds it.
void KeepingRun::settle(Key key) {
  Entry& entry = entries_.at(key);
  if (entry.holders > 0) return;
  const bool held = entry.storage.storage.use_count() > 1;
  if (held && !entry.again && collect_) return;
  if (held && entry.again) {
    drop_contents(entry.storage.storage);
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
    if (!runs_again(i) && std::binary_search(segment_.held.begin(), segment_.held.end(), v))
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
  for (auto& [v, tensor] : storages.held) {
    require_grad(graph, v, tensor);
    locals[v] = std::move(tensor);
  }
  std::sort(storages.emptied.begin(), storages.emptied.end(), [](const EmptiedStorage& a, const EmptiedStorage& b) {
    return std::pair(a.call, a.index) < std::pair(b.call, b.index);
  });
  auto next = storages.emptied.begin();
  for (std::size_t i = 0; i < segment.code.calls.size(); ++i) {
    if (segment.again[i] == 0) continue;
    OpCall& call = segment.code.calls[i];
    const std::vector<model::ValueId>& outputs = graph.ops[call.op()].outputs;
    MadeTensors made;
    call.run(locals, mode);
    const std::vector<at::Tensor> beside = made.take();
    std::vector<std::pair<c10::Storage, c10::Storage>> filled;  // the replay's, the graph's
    for (; next != storages.emptied.end() && next->call == static_cast<int>(i); ++next) {
      const auto index = static_cast<std::size_t>(next->index);
      const at::Tensor& fresh = index < outputs.size() ? locals[outputs[index]] : beside.at(index - outputs.size());
      filled.emplace_back(fresh.storage(), std::move(next->storage));
      move_contents(filled.back().first, filled.back().second);
    }
    for (const model::ValueId v : outputs) {
      if (v < 0 || !locals[v].defined()) continue;
      for (const auto& [from, to] : filled)
        if (key_of(locals[v]) == from.unsafeGetStorageImpl()) locals[v] = on_storage(to, locals[v]);
      require_grad(graph, v, locals[v]);
    }
    for (const model::ValueId v : segment.again_releases[i]) locals[v].reset();
  }
}

}  // namespace coxswain::worker
