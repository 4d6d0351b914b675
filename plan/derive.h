#pragma once
// Private to plan/: what a stage must do, derived from stages, batch and a compute order. fill_roles writes it and the
// validator compares with it. Threads: pure. Source: docs/plan.md, "Actions".
#include <vector>

#include "plan/program.h"
#include "plan/zero.h"

namespace coxswain::plan {

/// True for the stage of the last part, which counts and reduces the loss.
[[nodiscard]] bool ends_in_loss(const Plan& plan, int stage);

/// The position of a device in Group::position of StageReplicas; -1: of none.
[[nodiscard]] inline int shard_position(const Stage& stage, int position) {
  if (has_equal_meshes(stage))
    return position % (stage.replicas.front().tensor < 1 ? 1 : stage.replicas.front().tensor);
  return position == 0 ? 0 : -1;
}
[[nodiscard]] inline bool has_mesh(const Stage& stage) {
  for (const Replica& replica : stage.replicas)
    if (replica.devices.size() > 1) return true;
  return false;
}

/// ZeRO 2 and 3: whether the stage has parameters that several of its blocks (and no other stage's) use. Their gradient
/// is whole only at the end of a step, and their values stay whole.
[[nodiscard]] bool has_reused(const Stage& stage, const ParameterUses& uses);

/// Gradient bytes of each block of `stage` that its replicas reduce in buckets. A parameter that several blocks of the
/// stage use counts at the lowest one (its gradient is complete last there), under ZeRO 2 and 3 nowhere (has_reused);
/// one tied across stages counts nowhere.
[[nodiscard]] std::vector<Bytes> bucket_bytes_of(const Stage& stage, const ParameterUses& uses);

/// Empty for one replica, for a stage that has nothing to reduce and for one of unequal meshes (REDUCE_SHARED reduces
/// all of it). Under ZeRO 2 and 3 a bucket is a block that has parameters, with those below it that have none.
[[nodiscard]] std::vector<int> make_bucket_starts(const Stage& stage, const std::vector<Bytes>& block_bytes,
                                                  Bytes bucket_bytes);

/// What a list depends on besides its plan.
struct StageParameters {
  bool reused = false;             // has_reused
  std::vector<int> expert_blocks;  // reduced_expert_blocks (experts.h)
};
[[nodiscard]] StageParameters find_parameters(const Stage& stage, const std::vector<std::int64_t>& expert_counts,
                                              const ParameterUses& uses);

/// The complete list of `stage`, with `schedule` (F and B, or I and W; micro-batch and chunk only) as the order of its
/// compute part.
[[nodiscard]] std::vector<Action> stage_actions(const Plan& plan, int stage, const std::vector<Action>& schedule,
                                                const std::vector<TiedParameter>& tied,
                                                const StageParameters& parameters,
                                                ListDetail detail = ListDetail::Complete);

/// F and B (or I, W) of a list in its order; a backward in parts counts once.
[[nodiscard]] std::vector<Action> compute_order(const std::vector<Action>& actions);
/// The first role of `stage`; the roles of a stage have one order. Requires: there is one.
[[nodiscard]] const Role& role_of_stage(const Plan& plan, int stage);

/// True when two replicas of one stage belong to one role.
[[nodiscard]] bool same_role(const Replica& a, const Replica& b);

/// A program without rank and place: the same for every rank of a role.
[[nodiscard]] RankProgram make_role_program(const Plan& plan, int stage, const std::vector<Action>& actions);

}  // namespace coxswain::plan
