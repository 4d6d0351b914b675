// A result in one line (summarize) and as JSON (INTERFACE section 4).
#include <algorithm>

#include "plan/schedule.h"
#include "planner/planner.h"
#include "planner/replan.h"

namespace coxswain::planner {
namespace {

/// "4" or "3-5" or "5+3".
std::string replica_text(const plan::Plan& plan) {
  std::size_t least = plan.stages.front().replicas.size(), most = least;
  for (const plan::Stage& stage : plan.stages) {
    least = std::min(least, stage.replicas.size());
    most = std::max(most, stage.replicas.size());
  }
  return least == most ? std::to_string(least) : std::to_string(least) + "-" + std::to_string(most);
}

/// The shares of the first stage whose replicas differ, as "5+3"; "" where all are equal.
std::string samples_text(const plan::Plan& plan) {
  for (const plan::Stage& stage : plan.stages) {
    const auto differs = [&](const plan::Replica& replica) {
      return replica.samples != stage.replicas.front().samples;
    };
    if (std::none_of(stage.replicas.begin(), stage.replicas.end(), differs)) continue;
    constexpr std::size_t kMost = 8;
    std::string text;
    for (std::size_t r = 0; r < stage.replicas.size() && r < kMost; ++r)
      text += (r == 0 ? "" : "+") + std::to_string(stage.replicas[r].samples);
    return " (" + text + (stage.replicas.size() > kMost ? "+..." : "") + ")";
  }
  return "";
}

std::string recompute_text(const plan::Plan& plan) {
  std::int64_t full = 0, selective = 0, all = 0;
  for (const plan::Stage& stage : plan.stages) {
    full += std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Full);
    selective += std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Selective);
    all += static_cast<std::int64_t>(stage.recompute.size());
  }
  const auto of_all = [all](std::int64_t count) {
    return count == all ? std::string() : " in " + std::to_string(count) + " of " + std::to_string(all) + " blocks";
  };
  if (full == 0 && selective == 0) return "none";
  if (selective == 0) return full == all ? "full" : std::to_string(full) + " of " + std::to_string(all) + " blocks";
  return (full > 0 ? "full" + of_all(full) + ", " : "") + "selective" + of_all(selective);
}

/// The values of all stages, once where they agree: "4", or "4,2".
template <class Value>
std::string by_stage(const plan::Plan& plan, Value value) {
  std::string text;
  bool same = true;
  for (const plan::Stage& stage : plan.stages) {
    text += (text.empty() ? "" : ",") + std::to_string(value(stage));
    same = same && value(stage) == value(plan.stages.front());
  }
  return same ? std::to_string(value(plan.stages.front())) : "[" + text + "]";
}

}  // namespace

std::string summarize(const plan::Plan& plan) {
  std::string text = "dp" + replica_text(plan) + " pp" + std::to_string(plan.stages.size());
  const std::string tensor = by_stage(plan, [](const plan::Stage& stage) { return stage.replicas.front().tensor; });
  if (tensor != "1") text += " tp" + tensor;
  const std::string zero = by_stage(plan, [](const plan::Stage& stage) { return stage.zero_stage; });
  if (zero != "0") text += " zero" + zero;
  const std::string context = by_stage(plan, [](const plan::Stage& stage) { return stage.replicas.front().context; });
  if (context != "1") text += " cp" + context;
  const std::string expert = by_stage(plan, [](const plan::Stage& stage) { return stage.replicas.front().expert; });
  if (expert != "1") text += " ep" + expert;
  for (const plan::Offload kind : {plan::Offload::Optimizer, plan::Offload::Activations}) {
    const auto count = std::count_if(plan.stages.begin(), plan.stages.end(),
                                     [kind](const plan::Stage& stage) { return stage.offload == kind; });
    if (count > 0)
      text +=
          " offload " + std::string(plan::to_text(kind)) +
          (count == static_cast<std::ptrdiff_t>(plan.stages.size()) ? "" : " of " + std::to_string(count) + " stages");
  }
  if (plan.stages.size() > 1) {
    text += ", cuts [";
    for (std::size_t s = 1; s < plan.stages.size(); ++s)
      text += (s == 1 ? "" : ",") + std::to_string(plan.stages[s].first_block);
    text += "]";
  }
  text += ", micro " + std::to_string(plan.batch.micro) + " x " + std::to_string(plan.batch.count) + samples_text(plan);
  if (plan.stages.size() > 1) text += ", " + std::string(plan::to_text(plan.schedule));
  if (plan::has_chunks(plan.schedule))
    text += " of " + std::to_string(plan::num_chunks(plan.stages.front())) + " chunks";
  return text + ", recompute " + recompute_text(plan);
}

Json to_json(const PlanResult& result) {
  JsonArray runners, rejected, sensitivities;
  for (const RunnerUp& runner : result.runners_up) {
    JsonObject entry{{"estimate", plan::to_json(runner.estimate)},
                     {"plan", plan::to_json(runner.plan)},
                     {"summary", runner.summary}};
    if (runner.move) entry["move_seconds"] = runner.move->value;
    runners.push_back(std::move(entry));
  }
  for (const Rejected& one : result.rejected) {
    JsonObject entry{{"count", one.count}, {"example", one.example}, {"reason", one.reason}};
    if (!one.family.empty()) entry["family"] = one.family;
    if (one.step) entry["step_seconds"] = one.step->value;
    rejected.push_back(std::move(entry));
  }
  for (const Sensitivity& one : result.sensitivities) {
    JsonObject entry{{"change", one.change}, {"step_seconds", one.step.value}};
    if (!one.summary.empty()) entry["summary"] = one.summary;
    sensitivities.push_back(std::move(entry));
  }
  JsonObject json{
      {"binding_constraint", result.binding_constraint},
      {"classes", class_json(result.classes)},
      {"estimate", plan::to_json(result.estimate)},
      {"lower_bound_step_seconds", result.lower_bound_step.value},
      {"objective", result.objective == Objective::Cost ? "cost" : "time"},
      {"optimality_gap", result.optimality_gap},
      {"plan", plan::to_json(result.plan)},
      {"rejected", std::move(rejected)},
      {"runners_up", std::move(runners)},
      {"search", JsonObject{{"candidates_costed", result.candidates_costed}, {"seconds", result.search_seconds}}},
      {"sensitivities", std::move(sensitivities)},
      {"summary", result.summary}};
  if (result.estimate.cost_per_step) json["cost_per_step_usd"] = result.estimate.cost_per_step->value;
  if (result.lower_bound_cost) json["lower_bound_cost_per_step_usd"] = result.lower_bound_cost->value;
  if (result.move) json["move"] = to_json(*result.move);
  return json;
}

}  // namespace coxswain::planner
