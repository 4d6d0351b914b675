#include "worker/engine/storage_traffic.h"

#include <ATen/core/Tensor.h>

namespace coxswain::worker {
namespace {

using executor::Communication;
using plan::Action;
using plan::ActionKind;

collective::BufferView view(const at::Tensor& tensor) { return {tensor.data_ptr(), tensor.numel(), DType::Float32}; }

bool is_gather(const Action& action) {
  return action.kind == ActionKind::GatherParameter || action.kind == ActionKind::GatherReused;
}

void fill_sharded(const Action& action, ShardedStorage& storage, Communication& to) {
  if (is_gather(action)) {
    const at::Tensor& values = storage.begin_gather();
    to.kind = values.numel() > 0 ? Communication::Kind::AllGather : Communication::Kind::None;
    to.counts = storage.byte_counts();
    const std::int64_t own = to.counts[storage.index()];
    to.output = {values.data_ptr(), values.numel(), DType::UInt8};
    to.buffer = {static_cast<char*>(values.data_ptr()) + storage.own_byte(), own, DType::UInt8};
    return;
  }
  const ShardedStorage::Scatter& scatter = storage.begin_scatter();
  to.kind = scatter.whole.numel() > 0 ? Communication::Kind::ReduceScatter : Communication::Kind::None;
  to.counts = storage.piece_counts();
  to.buffer = view(scatter.whole);
  to.output = view(scatter.piece);
}

}  // namespace

void fill_storage(const Action& action, int storage, ParameterStore& store, Communication& to) {
  if (ShardedStorage* const sharded = store.sharded(storage)) return fill_sharded(action, *sharded, to);
  // Every rank has them whole.
  if (action.kind == ActionKind::ReduceReused || action.kind == ActionKind::GatherReused) return;
  store.complete_gradient(storage);
  to.buffer = view(action.kind == ActionKind::ReduceGradient || action.kind == ActionKind::ReduceExperts
                       ? store.gradient(storage)
                       : store.prepare_sum(storage));
  if (to.buffer.count > 0) to.kind = Communication::Kind::AllReduce;
}

void complete_storage(const Action& action, int storage, ParameterStore& store) {
  if (ShardedStorage* const sharded = store.sharded(storage)) {
    is_gather(action) ? sharded->end_gather() : sharded->end_scatter();
  } else if (action.kind == ActionKind::ReduceShared || action.kind == ActionKind::ReduceTied) {
    store.finish_sum(storage);
  }
}

}  // namespace coxswain::worker
