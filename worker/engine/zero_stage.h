#pragma once
// What a rank needs to know to hold its stage in pieces (ZeRO): with whom, and after which action of its list a
// gathered bucket is let go. Called by engine and stage_storages. Threads: pure.
// Private to worker/engine. Source: docs/plan.md, "ZeRO".
#include <vector>

#include "plan/program.h"
#include "worker/engine/sharded_storage.h"

namespace coxswain::worker {

/// Of the buckets of `rank`'s stage: zero_stage 0 where no other rank holds the same shards. `shared`: of the
/// parameters that several blocks use, whose values and gradients ZeRO 2 and 3 leave whole, as ZeRO 1 does.
[[nodiscard]] Sharding sharding_of(const plan::Plan& plan, const std::vector<plan::Group>& groups, int rank,
                                   bool shared = false);

/// ZeRO 3: the compute actions of a list that run on gathered buckets, in order.
class GatheredUses {
 public:
  GatheredUses() = default;
  explicit GatheredUses(const std::vector<plan::Action>& actions);
  void restart() { next_ = 0; }
  /// Called once for each compute action, in list order: true where its bucket is not used again before it is gathered
  /// again, so not where the next one of the list is on the same.
  [[nodiscard]] bool ends(const plan::Action& action);

 private:
  std::vector<int> first_blocks_;
  std::size_t next_ = 0;
};

}  // namespace coxswain::worker
