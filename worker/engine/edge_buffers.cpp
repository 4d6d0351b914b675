#include "worker/engine/edge_buffers.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

namespace coxswain::worker {

using collective::PointToPoint;

at::Tensor EdgeBuffers::piece(const at::Tensor& whole, model::ValueId value, const plan::Transfer& transfer) const {
  const auto samples = graph_.batch_symbol.empty() ? std::nullopt : sample_dim_of(graph_, value);
  if (!samples) return whole;
  return whole.narrow(samples->dim, transfer.first_sample * samples->multiple,
                      transfer.num_samples * samples->multiple);
}

PointToPoint EdgeBuffers::operation(PointToPoint::Kind kind, int peer, const at::Tensor& part,
                                    model::ValueId value) const {
  return {kind, peer, {part.data_ptr(), part.numel(), stored_dtype(graph_, value, precision_)}};
}

std::vector<PointToPoint> EdgeBuffers::send(const plan::Action& action, const EdgeSpec& edge,
                                            const std::vector<at::Tensor>& tensors, bool once) {
  Pending& pending = pending_[key_of(action)];
  std::vector<PointToPoint> operations;
  for (std::size_t t = 0; t < edge.transfers.size(); ++t) {
    auto& parts = pending.parts.emplace_back();
    for (std::size_t i = 0; i < edge.values.size(); ++i) {
      const bool split = !graph_.batch_symbol.empty() && sample_dim_of(graph_, edge.values[i]).has_value();
      at::Tensor part = piece(tensors[i], edge.values[i], edge.transfers[t]).contiguous();
      if (once && !split && t > 0) part = at::zeros_like(part);
      operations.push_back(operation(PointToPoint::Kind::Send, edge.peers[t], part, edge.values[i]));
      parts.push_back(std::move(part));
    }
  }
  return operations;
}

std::vector<PointToPoint> EdgeBuffers::receive(const plan::Action& action, const EdgeSpec& edge) {
  Pending& pending = pending_[key_of(action)];
  std::vector<PointToPoint> operations;
  for (const model::ValueId value : edge.values)
    pending.whole.push_back(
        at::empty(sizes_of(graph_, value, samples_), options_of(stored_dtype(graph_, value, precision_))));
  for (std::size_t t = 0; t < edge.transfers.size(); ++t) {
    auto& parts = pending.parts.emplace_back();
    for (std::size_t i = 0; i < edge.values.size(); ++i) {
      at::Tensor part = piece(pending.whole[i], edge.values[i], edge.transfers[t]);
      // A part that is no run of memory, or that others would overwrite, arrives apart.
      const bool shared = t > 0 && part.is_same(pending.whole[i]);
      if (shared || !part.is_contiguous()) part = at::empty(part.sizes(), part.options());
      operations.push_back(operation(PointToPoint::Kind::Receive, edge.peers[t], part, edge.values[i]));
      parts.push_back(std::move(part));
    }
  }
  return operations;
}

std::vector<at::Tensor> EdgeBuffers::take(const plan::Action& action, const EdgeSpec& edge, bool sum) {
  Pending pending = std::move(pending_.at(key_of(action)));
  pending_.erase(key_of(action));
  for (std::size_t t = 0; t < edge.transfers.size(); ++t) {
    for (std::size_t i = 0; i < edge.values.size(); ++i) {
      const at::Tensor& part = pending.parts[t][i];
      const at::Tensor target = piece(pending.whole[i], edge.values[i], edge.transfers[t]);
      if (part.data_ptr() == target.data_ptr()) continue;
      const bool split = !graph_.batch_symbol.empty() && sample_dim_of(graph_, edge.values[i]).has_value();
      if (split) {
        target.copy_(part);
      } else if (sum) {
        target.add_(part);
      }
    }
  }
  return std::move(pending.whole);
}

}  // namespace coxswain::worker
