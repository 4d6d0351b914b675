#pragma once
// Rewrites in-place operators away: every tensor of the traced program is a chain of views on a storage; a write to one
// replaces the storage's value (through the inverse of each view), and tensors that look at it are derived anew when
// they are read next. Called by the .pt2 reader. Private to this folder. Threads: one at a time.
//
//   v = h.view(-1, 2, 4);  v[:, 0].add_(1)     becomes     a = select(v, 1, 0) + 1
//                                                          v' = select_scatter(v, a, 1, 0)
//                                                          h' = reshape(v', [batch, 8])     (when h is read again)
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "model/model_graph.h"
#include "model/pt2_ops.h"

namespace coxswain::model {

/// A tensor of the traced program; several may share a storage.
using TensorId = int;

class AliasTracker {
 public:
  explicit AliasTracker(ModelGraph& graph) : graph_(graph) {}

  /// A tensor with a storage of its own. `given`: a parameter, buffer or input of the model, so that a write is seen
  /// outside.
  TensorId add_root(ValueId value, bool given = false);
  /// Output `output` of the view operator `op` (already in the graph), applied to `base`.
  TensorId add_view(TensorId base, const Op& op, std::size_t output, ValueId value);
  /// A tensor that may or may not share the storage of `base` (reshape of a strided tensor): a later write to either is
  /// refused.
  TensorId add_unclear(TensorId base, ValueId value);

  /// The tensor's value now; adds operators when a write went past it.
  ValueId read(TensorId tensor);
  /// `tensor` holds `value` from now on. Errors: Unimplemented (a view that cannot be inverted; an unclear storage).
  Result<void> write(TensorId tensor, ValueId value, const Origin& origin);

  /// Parameters, buffers and inputs of the model that were written: their first value.
  [[nodiscard]] const std::vector<ValueId>& written_roots() const { return written_roots_; }

 private:
  struct Step {
    Op op;
    std::size_t output = 0;
    ValueId result = -1;  // first derived value: gives name, dims and dtype
  };
  struct Tensor {
    int storage = -1;
    std::vector<Step> steps;
    ValueId value = -1;
    int version = 0;
  };
  struct Storage {
    ValueId first = -1;  // value at creation
    ValueId value = -1;  // value now
    int version = 0;
    bool given = false;
    bool unclear = false;
  };

  ValueId derive(const Step& step, ValueId base);
  Result<ValueId> invert(const Step& step, ValueId base, ValueId value, const Origin& origin);
  std::optional<std::pair<Dim, Dim>> part_of(const Step& step, ValueId base, ValueId value) const;

  ModelGraph& graph_;
  std::vector<Tensor> tensors_;
  std::vector<Storage> storages_;
  std::vector<ValueId> written_roots_;
};

}  // namespace coxswain::model
