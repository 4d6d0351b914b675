#include "planner/explain.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

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

std::string seconds_text(Seconds seconds) {
  if (seconds.value >= 1) return format("%.3f s", seconds.value);
  if (seconds.value >= 1e-3) return format("%.2f ms", seconds.value * 1e3);
  return format("%.1f us", seconds.value * 1e6);
}

std::vector<std::pair<std::string, Seconds>> parts_of(const plan::Estimate& e) {
  return {{"forward", e.forward},     {"backward", e.backward},
          {"recompute", e.recompute}, {"communication exposed", e.communication_exposed},
          {"bubble", e.bubble},       {"optimizer", e.optimizer}};
}

std::string time_table(const plan::Estimate& e) {
  std::string text = format("step %s, %.0f tokens/s, MFU %.1f %%, idle %.1f %%\n", seconds_text(e.step).c_str(),
                            e.tokens_per_second, e.model_flops_utilization * 100, e.bubble_fraction * 100);
  for (const auto& [name, seconds] : parts_of(e)) {
    const double share = e.step.value > 0 ? seconds / e.step * 100 : 0;
    text += format("  %-22s %12s %6.1f %%\n", name.c_str(), seconds_text(seconds).c_str(), share);
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
    text += format("  %-40s %12s %+6.1f %%\n", one.change.c_str(), seconds_text(one.step).c_str(),
                   (one.step / step - 1) * 100);
  }
  return text.empty() ? text : "what one change would buy:\n" + text;
}

}  // namespace

std::string explain(const PlanResult& result) {
  std::string text = "plan: " + result.summary + "\n" + time_table(result.estimate);
  text += format("bound %s (gap %.1f %%), %lld candidates costed\n", seconds_text(result.lower_bound_step).c_str(),
                 result.optimality_gap * 100, static_cast<long long>(result.candidates_costed));
  if (result.move) text += to_text(*result.move);
  text += "binds: " + result.binding_constraint + "\n" + memory_table(result.plan, result.estimate);
  if (!result.runners_up.empty()) text += "runners-up:\n";
  for (const RunnerUp& runner : result.runners_up) {
    text += format("  %12s %+6.1f %%  %s\n", seconds_text(runner.estimate.step).c_str(),
                   (runner.estimate.step / result.estimate.step - 1) * 100,
                   (runner.summary + (runner.move ? ", moving " + duration_text(*runner.move) : "")).c_str());
  }
  if (!result.rejected.empty()) text += "rejected:\n";
  for (const Rejected& one : result.rejected)
    text += format("  %8lld  %s", static_cast<long long>(one.count), one.reason.c_str()) + " (" + one.example + ")\n";
  return text + sensitivity_lines(result.sensitivities, result.estimate.step);
}

Result<PlanExplanation> explain_plan(const cost_model::CostModel& cost, const plan::Plan& plan,
                                     const plan::Plan* against) {
  COX_TRY(cost_model::Simulation ours, cost_model::simulate(cost, plan));
  PlanExplanation result;
  result.plan = plan;
  result.estimate = std::move(ours.estimate);
  result.summary = summarize(plan);
  result.binding_constraint = describe_binding(cost, plan, result.estimate);
  result.sensitivities = link_sensitivities(cost, plan);
  if (against == nullptr) return result;

  COX_TRY(cost_model::Simulation other, cost_model::simulate(cost, *against));
  const auto mine = parts_of(result.estimate), theirs = parts_of(other.estimate);
  for (std::size_t i = 0; i < mine.size(); ++i)
    result.differences.push_back({mine[i].first, mine[i].second, theirs[i].second});
  std::stable_sort(result.differences.begin(), result.differences.end(),
                   [](const PartDifference& a, const PartDifference& b) {
                     return std::abs((a.other - a.ours).value) > std::abs((b.other - b.ours).value);
                   });
  const double ratio = other.estimate.step / result.estimate.step - 1;
  const bool slower = ratio >= 0;
  // The part that explains most of the difference, in its direction.
  const PartDifference* main_part = nullptr;
  for (const PartDifference& one : result.differences) {
    const double change = (one.other - one.ours).value;
    if (change != 0 && (change > 0) == slower) {
      main_part = &one;
      break;
    }
  }
  result.verdict = summarize(*against) + format(" is %.1f %% %s", std::abs(ratio) * 100, slower ? "slower" : "faster");
  if (main_part != nullptr)
    result.verdict += ", mostly by " + main_part->part + " (" + seconds_text(main_part->ours) + " -> " +
                      seconds_text(main_part->other) + ")";
  for (const plan::DeviceEstimate& device : other.estimate.devices) {
    if (device.parts.total() <= device.capacity) continue;
    result.verdict += "; it needs " + bytes_text(device.parts.total().value) + " of the " +
                      bytes_text(device.capacity.value) + " of " + device.device;
    break;
  }
  result.against = RunnerUp{*against, std::move(other.estimate), summarize(*against)};
  return result;
}

std::string to_text(const PlanExplanation& explanation) {
  std::string text = "plan: " + explanation.summary + "\n" + time_table(explanation.estimate) +
                     "binds: " + explanation.binding_constraint + "\n" +
                     memory_table(explanation.plan, explanation.estimate);
  text += sensitivity_lines(explanation.sensitivities, explanation.estimate.step);
  if (!explanation.against) return text;
  text += "why not: " + explanation.verdict + "\n" +
          format("  %-22s %12s %12s %12s\n", "part", "this", "that", "difference");
  for (const PartDifference& one : explanation.differences) {
    const Seconds change = one.other - one.ours;
    text += format("  %-22s %12s %12s %12s\n", one.part.c_str(), seconds_text(one.ours).c_str(),
                   seconds_text(one.other).c_str(),
                   ((change.value < 0 ? "-" : "+") + seconds_text(Seconds(std::abs(change.value)))).c_str());
  }
  return text + memory_table(explanation.against->plan, explanation.against->estimate);
}

Json to_json(const PlanExplanation& explanation) {
  JsonArray sensitivities, differences;
  for (const Sensitivity& one : explanation.sensitivities)
    sensitivities.push_back(JsonObject{{"change", one.change}, {"step_seconds", one.step.value}});
  JsonObject json{{"binding_constraint", explanation.binding_constraint},
                  {"estimate", plan::to_json(explanation.estimate)},
                  {"sensitivities", std::move(sensitivities)},
                  {"summary", explanation.summary}};
  if (explanation.against) {
    for (const PartDifference& one : explanation.differences)
      differences.push_back(
          JsonObject{{"other_seconds", one.other.value}, {"part", one.part}, {"seconds", one.ours.value}});
    json["against"] = JsonObject{{"differences", std::move(differences)},
                                 {"estimate", plan::to_json(explanation.against->estimate)},
                                 {"summary", explanation.against->summary},
                                 {"verdict", explanation.verdict}};
  }
  return json;
}

}  // namespace coxswain::planner
