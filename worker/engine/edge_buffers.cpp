#include "worker/engine/edge_buffers.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace coxswain::worker {

using collective::PointToPoint;

PointToPoint EdgeBuffers::operation(PointToPoint::Kind kind, int peer, const at::Tensor& part,
                                    model::ValueId value) const {
  return {kind, peer, {part.data_ptr(), part.numel(), stored_dtype(graph_, value, precision_)}};
}

std::vector<PointToPoint> EdgeBuffers::send(const plan::Action& action, const EdgeSpec& edge,
                                            const std::vector<at::Tensor>& tensors) {
  Pending& pending = pending_[key_of(action)];
  std::vector<PointToPoint> operations;
  for (const EdgePiece& piece : edge.pieces) {
    const at::Tensor& whole = tensors[piece.value];
    at::Tensor part = one_box(whole, piece.rows);
    if (part.defined()) {
      part = part.contiguous();
    } else {
      part = at::empty(part_sizes(piece.rows), whole.options());
      take_boxes(whole, piece.rows, part);
    }
    operations.push_back(operation(PointToPoint::Kind::Send, piece.peer, part, edge.values[piece.value]));
    pending.parts.push_back(std::move(part));
  }
  return operations;
}

std::vector<PointToPoint> EdgeBuffers::receive(const plan::Action& action, const EdgeSpec& edge) {
  Pending& pending = pending_[key_of(action)];
  std::vector<PointToPoint> operations;
  for (std::size_t v = 0; v < edge.values.size(); ++v) {
    const auto options = options_of(stored_dtype(graph_, edge.values[v], precision_));
    pending.whole.push_back(edge.whole[v] != 0 ? at::empty(edge.sizes[v], options) : at::zeros(edge.sizes[v], options));
  }
  for (const EdgePiece& piece : edge.pieces) {
    const at::Tensor& whole = pending.whole[piece.value];
    at::Tensor part = one_box(whole, piece.rows);
    // A part that is no run of memory, or that others are added to, arrives apart.
    if (edge.whole[piece.value] == 0 || !part.defined() || !part.is_contiguous())
      part = at::empty(part_sizes(piece.rows), whole.options());
    operations.push_back(operation(PointToPoint::Kind::Receive, piece.peer, part, edge.values[piece.value]));
    pending.parts.push_back(std::move(part));
  }
  return operations;
}

std::vector<at::Tensor> EdgeBuffers::take(const plan::Action& action, const EdgeSpec& edge) {
  Pending pending = std::move(pending_.at(key_of(action)));
  pending_.erase(key_of(action));
  for (std::size_t i = 0; i < edge.pieces.size(); ++i) {
    const EdgePiece& piece = edge.pieces[i];
    const at::Tensor& whole = pending.whole[piece.value];
    const at::Tensor box = one_box(whole, piece.rows);
    const bool in_place = box.defined() && box.data_ptr() == pending.parts[i].data_ptr();
    if (!in_place) put_boxes(whole, piece.rows, pending.parts[i], edge.whole[piece.value] == 0);
  }
  return std::move(pending.whole);
}

}  // namespace coxswain::worker
