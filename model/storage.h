#pragma once
// Which values share a storage, and how they lie in it, while a run of operators executes at a given number of samples.
// Views cost no bytes, but whether `reshape` is a view depends on strides: attention writes (batch, length, heads,
// depth), so merging its heads is free, while merging those of a plain matmul copies. Private to this folder. Threads:
// immutable after construction. Cost: linear in the operators. Source: docs/cost_model.md, C2-C3.
#include <cstdint>
#include <optional>
#include <vector>

#include "model/model_graph.h"
#include "model/op_rules.h"
#include "model/widths.h"

namespace coxswain::model {

using Sizes = std::vector<std::int64_t>;

/// One value in memory. `base` owns the storage (itself unless a view).
struct Placed {
  ValueId base = -1;
  ValueId gradient_owner = -1;
  Sizes dims, strides;  // elements
  std::int64_t elements = 1;
  std::int64_t of_table = 0;  // a gather of experts that is not made: elements of the table that it stands for
};

class StorageMap {
 public:
  /// Runs ops [first, end). Values from outside are taken as contiguous storages of their own.
  StorageMap(const ModelGraph& graph, OpId first, OpId end, std::int64_t samples,
             ExpertForm experts = ExpertForm::Gathered, Width width = Width::Stored);

  [[nodiscard]] const Widths& widths() const { return widths_; }
  [[nodiscard]] std::int64_t samples() const { return samples_; }
  /// Bytes of all elements of `value` by itself.
  [[nodiscard]] Bytes value_bytes(ValueId value) const { return widths_.element(value) * at(value).elements; }
  /// Requires: `value` is read or written by the run.
  [[nodiscard]] const Placed& at(ValueId value) const { return placed_[slot_[value]]; }
  [[nodiscard]] bool contains(ValueId value) const { return slot_[value] >= 0; }
  [[nodiscard]] ValueId base(ValueId value) const { return at(value).base; }
  /// Bytes of the storage that `value` owns or views.
  [[nodiscard]] Bytes storage_bytes(ValueId value) const;
  /// Bytes that reading every distinct element of `value` moves (a repeated dim counts once, a table once).
  [[nodiscard]] Bytes distinct_bytes(ValueId value) const;
  /// The op made no new storage: all its outputs are views.
  [[nodiscard]] bool is_view(const Op& op) const;
  [[nodiscard]] bool is_contiguous(ValueId value) const;
  /// The value whose gradient storage serves `value` too: undoing a transpose or a reshape is a view, while pieces and
  /// repeats have gradients of their own, which are written into, or summed to, that of the whole.
  [[nodiscard]] ValueId gradient_owner(ValueId value) const { return at(value).gradient_owner; }

 private:
  void add_outside(ValueId value);
  void run(const Op& op);
  void run_split(const Op& op, const Placed& source);
  int new_slot(ValueId value);
  [[nodiscard]] Sizes evaluate(ValueId value) const;
  [[nodiscard]] std::optional<Sizes> view_strides(const Op& op, Layout layout, const Placed& source,
                                                  const Sizes& dims) const;
  [[nodiscard]] Sizes pointwise_strides(const Op& op, const Sizes& dims) const;

  const ModelGraph& graph_;
  std::int64_t samples_;
  Bindings bindings_;
  ExpertForm experts_;
  Widths widths_;
  std::vector<int> slot_;  // by value
  std::vector<Placed> placed_;
};

/// What the backward of one op keeps: bases of graph values (parameters included), and bytes beyond them.
struct SavedStorages {
  std::vector<ValueId> bases;
  Bytes hidden{0};
  Bytes copies{0};  // of `hidden`: copies and matrices that our engine makes itself, so that it can make them again
};
[[nodiscard]] SavedStorages saved_storages(const ModelGraph& graph, const Op& op, const StorageMap& storage);

/// Cost of `op` inside the run of `storage`.
[[nodiscard]] OpCost cost_of(const ModelGraph& graph, const Op& op, const StorageMap& storage);
/// Largest extra bytes while its forward and its backward run, beyond inputs, outputs, saved values and gradients.
struct Workspace {
  Bytes forward{0}, backward{0};
};
[[nodiscard]] Workspace workspace_of(const ModelGraph& graph, const Op& op, const StorageMap& storage);

[[nodiscard]] Sizes contiguous_strides(const Sizes& dims);
/// Strides under which the same elements read as `to`, if they need no copy.
[[nodiscard]] std::optional<Sizes> restride(const Sizes& from, const Sizes& strides, const Sizes& to);

/// `op` builds a graph node: gradients are on and an output needs one.
[[nodiscard]] bool is_differentiated(const ModelGraph& graph, const Op& op);
/// Picks experts' matrices out of a table (experts, out, in).
[[nodiscard]] bool gathers_experts(const ModelGraph& graph, const Op& op);
/// A dropout that changes its input; attention that drops probabilities.
[[nodiscard]] bool drops(const Op& op);

}  // namespace coxswain::model
