#include "planner/search_report.h"

#include <algorithm>

namespace coxswain::planner {
namespace {

void fill_rejected(const SearchSpace& space, const SearchOutcome& outcome, PlanResult& result) {
  if (const auto& misfit = outcome.misfit; misfit.count > 0) {
    result.rejected.push_back(
        {"stage does not fit into memory", misfit.count,
         "blocks [" + std::to_string(misfit.first) + "," + std::to_string(misfit.end) + ") on " +
             space.request->cost->resources().device_classes[static_cast<std::size_t>(misfit.device_class)].name +
             ": " + bytes_text(misfit.least_excess) + " missing"});
  }
  const auto& simulated = outcome.simulated;
  if (simulated.size() > 1) {
    result.rejected.push_back(
        {"slower in simulation", static_cast<std::int64_t>(simulated.size()) - 1,
         summarize(simulated[1].plan) + ": " + std::to_string(simulated[1].estimate.step.value) + " s"});
  }
  if (!outcome.waiting.empty()) {
    const Candidate& first = outcome.waiting.front();
    const plan::Plan plan = place_candidate(space, first);  // without stages where its units find no room
    result.rejected.push_back({"bound no better than the best plan", static_cast<std::int64_t>(outcome.waiting.size()),
                               (plan.stages.empty() ? "" : summarize(plan) + ": ") + "at least " +
                                   std::to_string(cost_model::to_seconds(first.bound).value) + " s"});
  }
}

Error nothing_found(const SearchSpace& space, const SearchOutcome& outcome) {
  if (outcome.misfit.count > 0) return describe_infeasible(space, outcome.misfit);
  return Error{ErrorCode::InvalidArgument,
               kNothingMeets,
               "plan",
               "micro-batches, replicas and stages that go together",
               "none of " + std::to_string(outcome.costed) + " candidates",
               "loosen a constraint: a micro-batch has at least one sample for each replica"};
}

}  // namespace

Result<PlanResult> report_search(const SearchSpace& space, const SearchOutcome& outcome) {
  if (outcome.simulated.empty()) return nothing_found(space, outcome);
  const Request& request = *space.request;
  PlanResult result;
  const std::string model_hash = model::model_hash(request.cost->model());
  const std::string cluster_hash = cluster::cluster_hash(request.cost->resources());
  const auto finish = [&](const Simulated& from, plan::Plan& plan, plan::Estimate& estimate) {
    plan = from.plan;
    plan.model_hash = model_hash;
    plan.cluster_hash = cluster_hash;
    if (std::any_of(plan.stages.begin(), plan.stages.end(), [](const plan::Stage& s) { return s.zero_stage >= 2; }))
      plan::fill_roles(plan, request.cost->facts().uses(), kBucketBytes);
    estimate = from.estimate;
    if (request.tokens_per_sample > 1)
      estimate.tokens_per_second =
          static_cast<double>(request.global_batch * request.tokens_per_sample) / estimate.step.value;
  };
  const std::vector<Simulated> picked =
      pick_diverse(outcome.simulated, static_cast<std::size_t>(std::max(1, request.top_k)));
  finish(picked.front(), result.plan, result.estimate);
  result.summary = summarize(result.plan);
  result.lower_bound_step = cost_model::to_seconds(outcome.lower_bound);
  result.optimality_gap =
      result.lower_bound_step.value > 0 ? result.estimate.step.value / result.lower_bound_step.value - 1.0 : 0.0;
  result.binding_constraint = describe_binding(*request.cost, result.plan, result.estimate);
  result.candidates_costed = outcome.costed;
  for (std::size_t i = 1; i < picked.size(); ++i) {
    RunnerUp runner;
    finish(picked[i], runner.plan, runner.estimate);
    runner.summary = summarize(runner.plan);
    result.runners_up.push_back(std::move(runner));
  }
  fill_rejected(space, outcome, result);
  return result;
}

}  // namespace coxswain::planner
