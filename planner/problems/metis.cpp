#include "planner/problems/metis.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "planner/problems/metis_search.h"

namespace coxswain::planner {
namespace {

Json to_json(const MetisInstance& instance, const MetisPlan& plan) {
  JsonArray stages;
  for (const MetisStage& stage : plan.stages) {
    JsonArray replicas;
    for (const MetisReplicas& each : stage.replicas) {
      const int last = each.first_device + each.count * stage.tp - 1;
      replicas.emplace_back(JsonObject{{"device_type", instance.types[static_cast<std::size_t>(each.type)].name},
                                       {"count", each.count},
                                       {"samples", each.samples},
                                       {"devices", JsonArray{each.first_device, last}}});
    }
    stages.emplace_back(JsonObject{
        {"layers", JsonArray{stage.first, stage.end - 1}}, {"tp", stage.tp}, {"replicas", std::move(replicas)}});
  }
  return JsonObject{{"micro_batches", plan.micro_batches},
                    {"micro_batch", instance.global_batch / plan.micro_batches},
                    {"stages", std::move(stages)}};
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// Every point of the plan that was not measured, and what that makes of the step.
std::vector<std::string> list_notes(const MetisModel& model, const MetisFound& found) {
  const MetisInstance& instance = model.instance();
  std::vector<std::string> notes;
  for (const MetisStage& stage : found.plan.stages) {
    for (const MetisReplicas& each : stage.replicas) {
      const auto& points = instance.points.at({each.type, stage.tp});
      const auto above = points.lower_bound(each.samples);
      const std::string shard =
          instance.types[static_cast<std::size_t>(each.type)].name + " tp " + std::to_string(stage.tp);
      std::string note;
      if (above->first != each.samples)
        note = shard + " with " + std::to_string(each.samples) +
               " samples was not measured: interpolated between batches " + std::to_string(std::prev(above)->first) +
               " and " + std::to_string(above->first);
      if (points.size() == 1 && found.plan.stages.size() > 1 && found.plan.micro_batches > 1)
        note = shard +
               " was measured at one batch: what further micro-batches in flight hold is not known, and not "
               "counted";
      if (!note.empty() && std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(std::move(note));
    }
  }
  if (found.estimate.low_ms < found.estimate.high_ms)
    notes.push_back("with what interpolation leaves open the step takes " + number(found.estimate.low_ms / 1000) +
                    " to " + number(found.estimate.high_ms / 1000) + " s");
  return notes;
}

}  // namespace

Result<ContestAnswer> solve_metis(const MetisInstance& instance, const ContestOptions&) {
  const MetisModel model(instance);
  const auto found = search_metis(model);
  if (!found)
    return Error{ErrorCode::ResourceExhausted,
                 "no plan fits the memory with the batches that were measured",
                 "",
                 "room for a micro-batch on some number of devices",
                 "",
                 "profile smaller batches or larger tensor degrees, or give more devices"};
  ContestAnswer answer{to_json(instance, found->plan), found->estimate.ms / 1000, found->num_labels};
  answer.unit = "seconds per step";
  answer.step_seconds = answer.score;
  answer.lower_bound_step_seconds = found->lower_bound_ms / 1000;
  answer.notes = list_notes(model, *found);
  return answer;
}

Result<ContestSolver> load_metis(const Json& json, const std::filesystem::path& file) {
  COX_TRY(MetisInstance parsed, parse_metis(json, file));
  const auto instance = std::make_shared<const MetisInstance>(std::move(parsed));
  return ContestSolver([instance](const ContestOptions& options) { return solve_metis(*instance, options); });
}

}  // namespace coxswain::planner
