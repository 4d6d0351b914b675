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

at::Tensor EdgeBuffers::make_whole(const EdgeSpec& edge, std::size_t value) const {
  const auto options = options_of(stored_dtype(graph_, edge.values[value], precision_));
  return edge.whole[value] != 0 ? at::empty(edge.sizes[value], options) : at::zeros(edge.sizes[value], options);
}

std::vector<PointToPoint> EdgeBuffers::receive(const plan::Action& action, const EdgeSpec& edge) {
  Pending& pending = pending_[key_of(action)];
  pending.whole.resize(edge.values.size());
  std::vector<PointToPoint> operations;
  for (const EdgePiece& piece : edge.pieces) {
    const std::vector<std::int64_t>& sizes = edge.sizes[piece.value];
    at::Tensor part;
    // A part that is no run of memory, or that others are added to, arrives apart, and the whole is made for it then.
    if (edge.whole[piece.value] != 0 && is_run(sizes, piece.rows)) {
      at::Tensor& whole = pending.whole[piece.value];
      if (!whole.defined()) whole = make_whole(edge, piece.value);
      part = one_box(whole, piece.rows);
    } else {
      part = at::empty(part_sizes(piece.rows), options_of(stored_dtype(graph_, edge.values[piece.value], precision_)));
    }
    operations.push_back(operation(PointToPoint::Kind::Receive, piece.peer, part, edge.values[piece.value]));
    pending.parts.push_back(std::move(part));
  }
  return operations;
}

std::vector<at::Tensor> EdgeBuffers::take(const plan::Action& action, const EdgeSpec& edge) {
  Pending pending = std::move(pending_.at(key_of(action)));
  pending_.erase(key_of(action));
  for (std::size_t v = 0; v < edge.values.size(); ++v)
    if (!pending.whole[v].defined()) pending.whole[v] = make_whole(edge, v);
  for (std::size_t i = 0; i < edge.pieces.size(); ++i) {
    const EdgePiece& piece = edge.pieces[i];
    const at::Tensor& whole = pending.whole[piece.value];
    const at::Tensor box = one_box(whole, piece.rows);
    const bool in_place = box.defined() && box.data_ptr() == pending.parts[i].data_ptr();
    if (!in_place) put_boxes(whole, piece.rows, pending.parts[i], edge.whole[piece.value] == 0);
    pending.parts[i].reset();
  }
  return std::move(pending.whole);
}

}  // namespace coxswain::worker
