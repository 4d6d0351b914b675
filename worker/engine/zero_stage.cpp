#include "worker/engine/zero_stage.h"

#include <algorithm>
#include <set>

#include "common/ensure.h"

namespace coxswain::worker {

using plan::Action;
using plan::ActionKind;

Sharding sharding_of(const plan::Plan& plan, const std::vector<plan::Group>& groups, int rank, bool shared) {
  const plan::RankPlace place = plan::place_of(plan, rank);
  const plan::Stage& stage = plan.stages[place.stage];
  Sharding sharding;
  const int group = plan::group_of(plan, groups, place.stage, {ActionKind::ReduceGradient}, place.position);
  if (group < 0 || stage.zero_stage == 0) return sharding;
  const std::vector<int>& ranks = groups[group].ranks;
  const auto self = std::find(ranks.begin(), ranks.end(), rank);
  COX_ENSURE(self != ranks.end(), rank);
  sharding.zero_stage = shared ? 1 : stage.zero_stage;
  sharding.holders = static_cast<int>(ranks.size());
  sharding.index = static_cast<int>(self - ranks.begin());
  sharding.releases = sharding.zero_stage == 3;
  return sharding;
}

GatheredUses::GatheredUses(const std::vector<Action>& actions) {
  std::set<int> gathered;
  for (const Action& action : actions)
    if (action.kind == ActionKind::GatherParameter && action.micro_batch >= 0) gathered.insert(action.first_block);
  for (const Action& action : actions)
    if (plan::is_compute(action.kind) && gathered.contains(action.first_block))
      first_blocks_.push_back(action.first_block);
}

bool GatheredUses::ends(const Action& action) {
  if (next_ == first_blocks_.size() || first_blocks_[next_] != action.first_block) return false;
  ++next_;
  return next_ == first_blocks_.size() || first_blocks_[next_] != action.first_block;
}

}  // namespace coxswain::worker
