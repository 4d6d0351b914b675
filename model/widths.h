#pragma once
// Bytes an element of every value while a run of operators executes: as exported, or under mixed precision 2 where the
// policy says so; and what an operator casts its operands to. Private to this folder. Threads: immutable after
// construction. Source: docs/plan.md#mixed-precision, worker/engine (lowering, op_call).
#include <optional>
#include <vector>

#include "model/mixed_policy.h"
#include "model/model_graph.h"
#include "model/op_cost.h"

namespace coxswain::model {

class Widths {
 public:
  /// Of ops [first, end). What comes from elsewhere was rounded where its block was left.
  Widths(const ModelGraph& graph, OpId first, OpId end, Width width);

  [[nodiscard]] bool mixed() const { return !narrow_.empty(); }
  [[nodiscard]] Bytes element(ValueId value) const {
    return mixed() && narrow_[value] != 0 ? Bytes(kNarrow) : size_of(graph_.values[value].dtype);
  }
  /// Bytes an element that `op` computes in, where it casts operands of another width to it.
  [[nodiscard]] std::optional<Bytes> computed(const Op& op) const;
  /// True where `op` takes a copy of `value` in another width.
  [[nodiscard]] bool casts(const Op& op, ValueId value) const;
  /// Its result is computed in float32 and rounded.
  [[nodiscard]] bool rounds(const Op& op) const;

 private:
  static constexpr std::int64_t kNarrow = 2;
  void follow(const Op& op);
  [[nodiscard]] ComputeRule rule_of(const Op& op) const;

  const ModelGraph& graph_;
  std::vector<char> narrow_;  // by value; empty: nothing is
};

}  // namespace coxswain::model
