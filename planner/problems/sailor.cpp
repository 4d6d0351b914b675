#include "planner/problems/sailor.h"

#include <cstdio>
#include <memory>

#include "planner/problems/sailor_file.h"
#include "planner/problems/sailor_search.h"

namespace coxswain::planner {
namespace {

Json to_json(const SailorInstance& instance, const SailorPlan& plan) {
  JsonArray stages;
  for (const SailorStage& stage : plan.stages) {
    JsonArray replicas;
    for (const SailorReplicas& run : stage.replicas) {
      const SailorPool& pool = instance.pools[static_cast<std::size_t>(run.pool)];
      replicas.emplace_back(JsonObject{{"gpu", instance.gpus[static_cast<std::size_t>(pool.gpu)].name},
                                       {"zone", instance.zones[static_cast<std::size_t>(pool.zone)]},
                                       {"tp", run.tp},
                                       {"count", run.count}});
    }
    stages.emplace_back(
        JsonObject{{"layers", JsonArray{stage.first, stage.end - 1}}, {"replicas", std::move(replicas)}});
  }
  return JsonObject{{"microbatch", plan.micro_batch}, {"stages", std::move(stages)}};
}

std::string usd(double amount) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", amount);
  return text;
}

}  // namespace

Result<ContestAnswer> solve_sailor(const SailorInstance& instance, const ContestOptions& options) {
  const SailorModel model(instance);
  const auto found = search_sailor(model, options.strict);
  if (!found)
    return Error{ErrorCode::ResourceExhausted, "no plan keeps the rules and limits of the instance", "", "", "", ""};
  const SailorEstimate& estimate = found->best.estimate;
  ContestAnswer answer{to_json(instance, found->best.plan),
                       instance.minimise_cost ? estimate.usd : 1 / estimate.seconds, found->num_labels};
  answer.unit = instance.minimise_cost ? "US dollars per iteration" : "iterations per second";
  answer.step_seconds = estimate.seconds;
  const std::int64_t together = std::int64_t{found->best.plan.micro_batch} * num_replicas(found->best.plan);
  answer.rounds_batch_up = instance.global_batch % together != 0;
  if (answer.rounds_batch_up)
    answer.notes.push_back("replicas x micro-batch = " + std::to_string(together) +
                           " does not divide the global batch of " + std::to_string(instance.global_batch) +
                           ": Sailor rounds up, so that a step trains on more samples than asked for");
  answer.notes.push_back("an iteration costs " + usd(estimate.usd) + " US dollars");
  return answer;
}

Result<ContestSolver> load_sailor(const Json& json, const std::filesystem::path& file) {
  SailorInstance parsed;
  if (is_sailor_search(json)) {
    COX_TRY(const SailorDocuments documents, convert_sailor(json, file));
    COX_TRY(parsed, parse_sailor(documents.instance, documents.texts));
  } else {
    COX_TRY(parsed, parse_sailor(json, file));
  }
  const auto instance = std::make_shared<const SailorInstance>(std::move(parsed));
  return ContestSolver([instance](const ContestOptions& options) { return solve_sailor(*instance, options); });
}

}  // namespace coxswain::planner
