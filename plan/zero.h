#pragma once
// What ZeRO does on a stage, whatever the plan asks for. Called by whoever derives lists, groups, times and memory.
// Threads: pure. Source: docs/plan.md, "ZeRO".
#include "plan/plan.h"

namespace coxswain::plan {

/// Devices that hold one shard of the stage: a context axis holds parameters whole.
[[nodiscard]] inline int num_holders(const Stage& stage) {
  int holders = 0;
  for (const Replica& replica : stage.replicas) holders += replica.context;
  return holders;
}

/// Whether the replicas have meshes of one shape, so that devices of one position hold equal shards.
[[nodiscard]] inline bool has_equal_meshes(const Stage& stage) {
  for (const Replica& replica : stage.replicas)
    if (replica.tensor != stage.replicas.front().tensor || replica.context != stage.replicas.front().context)
      return false;
  return true;
}

/// What ZeRO does on the stage: nothing where nobody else holds its shards.
[[nodiscard]] inline int zero_of(const Stage& stage) {
  return num_holders(stage) < 2 || !has_equal_meshes(stage) ? 0 : stage.zero_stage;
}

}  // namespace coxswain::plan
