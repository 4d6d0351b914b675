#include "planner/search.h"

#include <algorithm>

#include "plan/program.h"

namespace coxswain::planner {

StageContext make_stage_context(const SearchSpace& space, const Combination& combination) {
  StageContext context;
  context.spans = space.spans;
  context.pools = &space.pools;
  context.micro = combination.micro;
  context.count = combination.count;
  context.bucket_bytes = kBucketBytes;
  context.compositions = *combination.compositions;
  context.spread = combination.spread;
  context.num_stages = combination.max_stages;
  context.states = space.states;
  context.schedule = combination.num_chunks > 1 ? plan::ScheduleKind::Interleaved : combination.schedule;
  context.num_chunks = combination.num_chunks;
  context.all_choices = !space.large;
  if (space.request->constraints.samples) context.samples = *space.request->constraints.samples;
  return context;
}

PipelineShape make_pipeline_shape(const SearchSpace& space, const Combination& combination) {
  return {combination.schedule,   combination.min_stages,   combination.max_stages,
          combination.cuts,       combination.fixed_cuts,   space.request->use_all_devices,
          space.devices,          combination.total_stages, space.large,
          combination.num_blocks, combination.num_chunks};
}

Candidate make_candidate(const SearchSpace& space, const Combination& combination,
                         const std::vector<PipelineProblem::Option>& path, Cost bound) {
  Candidate candidate{bound, combination.schedule,  combination.micro, combination.count, combination.spread,
                      {},    combination.num_chunks};
  int end = space.spans->num_blocks();
  for (const PipelineProblem::Option& option : path) {
    candidate.stages.push_back({option.first,
                                end,
                                (*combination.compositions)[static_cast<std::size_t>(option.composition)],
                                option.stage->shares,
                                option.stage->recompute,
                                option.stage->state,
                                {}});
    end = option.first;
  }
  std::reverse(candidate.stages.begin(), candidate.stages.end());
  return candidate;
}

CombinationResult search_combination(const SearchSpace& space, const Combination& combination, Cost upper_bound,
                                     const SearchLimits& limits) {
  StageCosts costs(make_stage_context(space, combination));
  PipelineProblem problem(costs, *combination.work, make_pipeline_shape(space, combination), upper_bound);
  SearchLimits here = limits;
  here.upper_bound = upper_bound;
  const auto found = search_labels(problem, here);

  CombinationResult result;
  result.lower_bound = found.lower_bound;
  result.labels = found.num_labels;
  result.complete = found.complete;
  result.costed = problem.num_costed();
  result.misfit = problem.misfit();
  for (const auto& one : found.best)
    result.candidates.push_back(make_candidate(space, combination, one.path, one.cost));
  return result;
}

plan::Plan place_candidate(const SearchSpace& space, const Candidate& candidate) {
  const Request& request = *space.request;
  plan::Plan plan;
  plan.backend = request.constraints.backend;
  plan.batch = {candidate.micro * candidate.count, candidate.micro, candidate.count};
  plan.precision = request.precision;
  plan.schedule = candidate.schedule;
  std::vector<std::int64_t> used(space.pools.size(), 0);
  const auto num_stages = static_cast<std::int64_t>(candidate.stages.size());
  for (std::int64_t s = 0; s < num_stages; ++s) {
    const CandidateStage& from = candidate.stages[static_cast<std::size_t>(s)];
    plan::Stage stage;
    stage.first_block = from.first;
    stage.end_block = from.end;
    stage.recompute = from.recompute;
    stage.chunks = from.chunks;
    stage.zero_stage = from.state.zero_stage;
    stage.offload = from.state.offload;
    std::vector<std::int64_t> taken(space.pools.size(), 0);  // units by this stage
    for (const Share& share : from.shares) {
      const Pool& pool = space.pools[share.pool];
      const Axes axes = from.composition.axes[share.pool];
      for (std::int32_t i = 0; i < share.replicas; ++i) {
        plan::Replica placed;
        placed.devices = candidate.spread ? devices_of_unit(pool, taken[share.pool]++ * num_stages + s, axes.size())
                                          : take_unit(pool, used[share.pool], axes.size());
        if (placed.devices.empty()) return {};
        placed.tensor = axes.tensor;
        placed.context = axes.context;
        placed.expert = from.composition.expert;
        placed.samples = share.samples;
        stage.replicas.push_back(std::move(placed));
      }
    }
    plan.stages.push_back(std::move(stage));
  }
  // Complete lists are many times longer: report_search writes those of the plans that are shown.
  plan::fill_roles(plan, request.cost->facts().uses(), kBucketBytes, plan::ListDetail::Priced);
  return plan;
}

}  // namespace coxswain::planner
