#pragma once
// Nominal seconds and bytes of every action of a role: what the simulator's Compute takes for them.
// Used by the simulator only. Threads: pure values. Source: docs/cost_model.md, C11-C13, C28.
#include <vector>

#include "cost_model/cost_model.h"
#include "cost_model/event_queue.h"
#include "plan/program.h"

namespace coxswain::cost_model {

/// Compute time of an action by what it is spent on.
struct ComputeTicks {
  Ticks forward = 0, backward = 0, recompute = 0, optimizer = 0;
  [[nodiscard]] Ticks total() const { return forward + backward + recompute + optimizer; }
};

/// Looks up what one role's rank does; made once per role.
class ActionTimes {
 public:
  ActionTimes(const CostModel& cost, const plan::Plan& plan, const plan::Role& role,
              const std::vector<plan::TiedParameter>& tied);

  [[nodiscard]] ComputeTicks compute(const plan::Action& action) const;
  /// Elements of a ReduceGradient, ReduceReused or ReduceTied (float32), or of the small reductions. Requires: not
  /// priced_elsewhere.
  [[nodiscard]] std::int64_t elements(const plan::Action& action) const;
  /// Bytes a sample of an edge action, on this role's side.
  [[nodiscard]] Bytes edge_bytes(const plan::Action& action, std::int64_t samples) const;

 private:
  /// `times`: backward_, or input_ of a split one.
  [[nodiscard]] ComputeTicks backward_time(const plan::Action& action, const std::vector<Ticks>& times) const;

  const CostModel& cost_;
  const plan::Plan& plan_;
  const plan::Stage& stage_;
  const std::vector<plan::TiedParameter>& tied_;
  int device_class_ = 0;
  [[nodiscard]] std::size_t at(int block) const { return static_cast<std::size_t>(plan::position_of(stage_, block)); }

  void add_gradients(int block, const plan::Replica& replica, std::int64_t shards);

  /// Of an action that begins a pass over a chunk, or of any. Under ZeRO 2 and 3 a pass is cut into its blocks for what
  /// runs beside them: the priced list, which has it whole, takes the same time (ListDetail).
  [[nodiscard]] Ticks overhead_of(const plan::Action& action) const;

  Ticks overhead_ = 0, optimizer_ = 0;
  std::vector<Ticks> forward_, backward_, input_, weight_, recompute_;  // by block of the stage, over its chunks
  std::int64_t reused_ = 0;                                             // elements of ReduceReused
  std::vector<std::int64_t> gradients_;  // float32 elements by block of the stage, as the buckets count them
};

/// Collectives of ZeRO that the blocks beside which they run (C26), or the update before them, pay for, and what else
/// is part of another's price.
[[nodiscard]] bool priced_elsewhere(const plan::Action& action);

}  // namespace coxswain::cost_model
