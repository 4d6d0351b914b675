#include "planner/explain.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "planner/compare.h"
#include "planner/objective.h"
#include "planner/outcome.h"
#include "planner/replan.h"

namespace coxswain::planner {
namespace {

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

std::string time_table(const plan::Estimate& e) {
  std::string text = format("step %s, %.0f tokens/s, MFU %.1f %%, idle %.1f %%\n", seconds_text(e.step).c_str(),
                            e.tokens_per_second, e.model_flops_utilization * 100, e.bubble_fraction * 100);
  for (const auto& [name, seconds] : parts_of(e)) {
    const double share = e.step.value > 0 ? seconds / e.step * 100 : 0;
    text += format("  %-22s %12s %6.1f %%\n", name.c_str(), seconds_text(seconds).c_str(), share);
  }
  if (e.cost_per_step) {
    constexpr double kThousand = 1000;
    text += "costs " + usd_text(*e.cost_per_step) + " a step, " +
            usd_text(cluster::Usd(e.cost_per_step->value * kThousand)) + " for 1,000 steps\n";
  }
  return text;
}

std::string memory_table(const plan::Plan& plan, const plan::Estimate& e) {
  std::string text =
      format("%-6s %-16s %5s %6s %10s %10s %10s %10s %10s %10s %10s %6s\n", "stage", "device", "ranks", "busy",
             "parameters", "gradients", "optimizer", "activations", "other", "margin", "capacity", "full");
  for (const plan::DeviceEstimate& device : e.devices) {
    const plan::MemoryParts& m = device.parts;
    const int stage = plan.roles[static_cast<std::size_t>(device.role)].stage;
    text +=
        format("%-6d %-16s %5zu %4.0f %% %10s %10s %10s %10s %10s %10s %10s %4.0f %%\n", stage, device.device.c_str(),
               device.ranks.size(), device.busy_fraction * 100, bytes_text(m.parameters.value).c_str(),
               bytes_text(m.gradients.value).c_str(), bytes_text(m.optimizer.value).c_str(),
               bytes_text(m.activations.value).c_str(), bytes_text((m.transfers + m.workspace).value).c_str(),
               bytes_text(m.margin.value).c_str(), bytes_text(device.capacity.value).c_str(),
               100.0 * static_cast<double>(m.total().value) /
                   static_cast<double>(std::max<std::int64_t>(1, device.capacity.value)));
  }
  return text;
}

std::string sensitivity_lines(const std::vector<Sensitivity>& sensitivities, Seconds step) {
  std::string text;
  for (const Sensitivity& one : sensitivities) {
    text += format("  %-40s %12s %+6.1f %%", one.change.c_str(), seconds_text(one.step).c_str(),
                   (one.step / step - 1) * 100) +
            (one.summary.empty() ? "" : "  " + one.summary) + "\n";
  }
  return text.empty() ? text : "what one change would buy:\n" + text;
}

std::string bound_line(const PlanResult& result) {
  if (result.objective == Objective::Cost && result.lower_bound_cost)
    return format("no plan costs less than %s a step (gap %.1f %%), %lld candidates costed\n",
                  usd_text(*result.lower_bound_cost).c_str(), result.optimality_gap * 100,
                  static_cast<long long>(result.candidates_costed));
  if (result.lower_bound_step.value <= 0) return "";
  return format("no plan steps in less than %s (gap %.1f %%), %lld candidates costed\n",
                seconds_text(result.lower_bound_step).c_str(), result.optimality_gap * 100,
                static_cast<long long>(result.candidates_costed));
}

std::string rejected_lines(const PlanResult& result) {
  std::string families, seen;
  for (const Rejected& one : result.rejected) {
    if (one.family.empty()) {
      seen += format("  %8lld  %s", static_cast<long long>(one.count), one.reason.c_str()) + " (" + one.example + ")\n";
    } else {
      families += format("  %-24s %s", one.family.c_str(), one.reason.c_str());
      if (!one.example.empty()) families += (one.step ? "; best: " : " (") + one.example + (one.step ? "" : ")");
      families += "\n";
    }
  }
  return (families.empty() ? "" : "why not:\n" + families) + (seen.empty() ? "" : "seen and rejected:\n" + seen);
}

std::string runner_lines(const PlanResult& result) {
  std::string text;
  for (const RunnerUp& runner : result.runners_up) {
    text += format("  %12s %+6.1f %%  ", seconds_text(runner.estimate.step).c_str(),
                   (runner.estimate.step / result.estimate.step - 1) * 100);
    if (runner.estimate.cost_per_step) text += usd_text(*runner.estimate.cost_per_step) + "  ";
    text += runner.summary + (runner.move ? ", moving " + duration_text(*runner.move) : "") + "\n";
  }
  return text.empty() ? text : "runners-up:\n" + text;
}

std::string against_text(const Against& against) {
  std::string text = "why not that plan: " + against.verdict + "\n";
  for (const std::string& reason : against.reasons) text += "  - " + reason + "\n";
  if (!against.estimate) return text;
  text += format("  %-22s %12s %12s %12s\n", "part", "this", "that", "difference");
  for (const PartDifference& one : against.differences) {
    const Seconds change = one.other - one.ours;
    text += format("  %-22s %12s %12s %12s\n", one.part.c_str(), seconds_text(one.ours).c_str(),
                   seconds_text(one.other).c_str(),
                   ((change.value < 0 ? "-" : "+") + seconds_text(Seconds(std::abs(change.value)))).c_str());
  }
  return text + "memory of that plan:\n" + memory_table(against.plan, *against.estimate);
}

}  // namespace

std::string explain(const PlanResult& result) {
  return "plan: " + result.summary + "\n" + time_table(result.estimate) + bound_line(result) +
         (result.move ? to_text(*result.move) : "") + "binds: " + result.binding_constraint + "\n" +
         class_table(result.classes) + memory_table(result.plan, result.estimate) + runner_lines(result) +
         rejected_lines(result) + sensitivity_lines(result.sensitivities, result.estimate.step);
}

Result<PlanExplanation> explain_plan(const Request& request, const plan::Plan& plan, const plan::Plan* against) {
  constexpr std::int64_t kQuickDevices = 64;
  constexpr double kBetter = 0.001;
  COX_TRY(cost_model::Simulation ours, cost_model::simulate(*request.cost, plan));
  PlanExplanation explanation;
  PlanResult& result = explanation.result;
  result.plan = plan;
  result.estimate = std::move(ours.estimate);
  result.summary = summarize(plan);
  result.objective = request.objective;
  result.binding_constraint = describe_binding(*request.cost, plan, result.estimate);
  result.classes = class_facts(request.cost->resources(), plan, result.estimate);
  if (cluster::num_devices(request.cost->resources()) <= kQuickDevices) {
    Request free = request;
    free.max_step.reset();
    free.max_cost_per_step.reset();
    free.objective = Objective::Time;
    free.explain_failure = false;
    if (const auto found = search_objective(free)) {
      result.lower_bound_step = found->lower_bound_step;
      result.lower_bound_cost = found->lower_bound_cost;
      result.candidates_costed = found->candidates_costed;
      result.optimality_gap = result.estimate.step / result.lower_bound_step - 1;
      if (found->estimate.step.value < result.estimate.step.value * (1 - kBetter))
        explanation.better = RunnerUp{found->plan, found->estimate, summarize(found->plan)};
    }
  }
  add_reasons(request, result, true);
  if (against != nullptr) explanation.against = compare_with(*request.cost, plan, result.estimate, *against);
  return explanation;
}

std::string to_text(const PlanExplanation& explanation) {
  std::string text = explain(explanation.result);
  if (explanation.better) {
    const plan::Estimate& better = explanation.better->estimate;
    text += "a better plan: " + seconds_text(better.step) + " a step, " +
            compare_text(better.step, explanation.result.estimate.step) + ": " + explanation.better->summary + "\n";
  }
  return explanation.against ? text + against_text(*explanation.against) : text;
}

Json to_json(const PlanExplanation& explanation) {
  Json json = to_json(explanation.result);
  if (explanation.result.lower_bound_step.value <= 0) {  // nothing was searched
    for (const char* key : {"lower_bound_step_seconds", "optimality_gap", "search"}) json.object().erase(key);
  }
  if (explanation.better)
    json["better"] = JsonObject{{"estimate", plan::to_json(explanation.better->estimate)},
                                {"plan", plan::to_json(explanation.better->plan)},
                                {"summary", explanation.better->summary}};
  if (explanation.against) {
    const Against& against = *explanation.against;
    JsonArray differences, reasons;
    for (const PartDifference& one : against.differences)
      differences.push_back(
          JsonObject{{"other_seconds", one.other.value}, {"part", one.part}, {"seconds", one.ours.value}});
    for (const std::string& reason : against.reasons) reasons.push_back(Json(reason));
    JsonObject object{{"differences", std::move(differences)},
                      {"reasons", std::move(reasons)},
                      {"summary", against.summary},
                      {"verdict", against.verdict}};
    if (against.estimate) object["estimate"] = plan::to_json(*against.estimate);
    json["against"] = std::move(object);
  }
  return json;
}

}  // namespace coxswain::planner
