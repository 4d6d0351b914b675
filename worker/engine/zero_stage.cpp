#include "worker/engine/zero_stage.h"

#include <algorithm>
#include <set>

#include "common/ensure.h"
#include "worker/engine/lowering.h"

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

Result<ParameterReads> find_reads(const LocalView& view, const plan::Plan& plan, int rank, const WeightSource& weights) {
  const model::ModelGraph& graph = view.graph();
  ParameterReads reads{std::vector<char>(graph.parameters.size(), 0), std::vector<char>(graph.parameters.size(), 0)};
  const plan::RankPlace place = plan::place_of(plan, rank);
  const plan::Stage& stage = plan.stages[place.stage];
  for (const plan::BlockRun& run : plan::runs_of(stage)) {
    const LoweringOptions options{run.first_block, run.end_block,  stage.replicas[place.replica].samples, {},
                                  plan.precision,  view.part ? &view : nullptr};
    COX_TRY(const LoweredStage lowered, lower_stage(graph, options, weights));
    for (const Segment& segment : lowered.segments)
      for (const ParameterUse& use : segment.parameters) (use.copy ? reads.copy : reads.master)[use.parameter] = 1;
  }
  return reads;
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
