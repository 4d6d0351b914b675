// Why not that other plan: a rule it breaks, memory it lacks and what would fit it, or what makes it slower.
#include <algorithm>

#include "plan/program.h"
#include "planner/compare.h"
#include "planner/conflicts.h"
#include "planner/search.h"
#include "planner/words.h"

namespace coxswain::planner {
namespace {

constexpr std::size_t kMostReasons = 8;

/// The largest part of a device's memory, in words.
std::string largest_part(const plan::MemoryParts& parts) {
  const std::pair<const char*, Bytes> all[] = {{"parameters", parts.parameters}, {"gradients", parts.gradients},
                                               {"optimizer", parts.optimizer},   {"activations", parts.activations},
                                               {"transfers", parts.transfers},   {"workspace", parts.workspace}};
  const auto* largest = std::max_element(std::begin(all), std::end(all),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
  return std::string(largest->first) + " " + bytes_text(largest->second.value);
}

bool fits(const plan::Estimate& estimate) {
  return std::all_of(estimate.devices.begin(), estimate.devices.end(),
                     [](const plan::DeviceEstimate& device) { return device.parts.total() <= device.capacity; });
}

void recompute_all(plan::Plan& plan) {
  for (plan::Stage& stage : plan.stages)
    std::fill(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Full);
}

void set_zero(plan::Plan& plan, int zero_stage) {
  for (plan::Stage& stage : plan.stages) {
    if (stage.replicas.size() > 1) stage.zero_stage = zero_stage;
  }
}

bool halve_micro(plan::Plan& plan) {
  for (plan::Stage& stage : plan.stages) {
    for (plan::Replica& replica : stage.replicas) {
      if (replica.samples % 2 != 0) return false;
      replica.samples /= 2;
    }
  }
  plan.batch.micro /= 2;
  plan.batch.count *= 2;
  return true;
}

/// Small changes of `plan` that make it fit, with their step: "recompute=full (12.3 ms a step)".
std::string what_would_fit(const cost_model::CostModel& cost, const plan::Plan& plan) {
  struct Variant {
    std::string name;
    plan::Plan plan;
  };
  std::vector<Variant> variants;
  const auto add = [&](const std::string& name, const plan::Plan& from, auto change) {
    plan::Plan changed = from;
    change(changed);
    if (!(changed == from)) variants.push_back({name, std::move(changed)});
  };
  add("recompute=full", plan, recompute_all);
  for (const int zero : {1, 2, 3})
    add("zero=" + std::to_string(zero), plan, [&](plan::Plan& changed) { set_zero(changed, zero); });
  plan::Plan halved = plan;
  if (cost.facts().static_batch() == 0 && halve_micro(halved))
    add("micro=" + std::to_string(halved.batch.micro), plan, [&](plan::Plan& changed) { changed = halved; });
  if (plan.schedule == plan::ScheduleKind::GPipe && plan.stages.size() > 1)
    add("schedule=1f1b", plan,
        [](plan::Plan& changed) { changed.schedule = plan::ScheduleKind::OneForwardOneBackward; });
  if (plan.stages.front().offload == plan::Offload::None)
    add("offload=optimizer", plan, [](plan::Plan& changed) {
      for (plan::Stage& stage : changed.stages) stage.offload = plan::Offload::Optimizer;
    });
  add("recompute=full and zero=3", plan, [](plan::Plan& changed) {
    recompute_all(changed);
    set_zero(changed, 3);
  });
  std::string text;
  for (Variant& variant : variants) {
    // The last one is two changes at once.
    if (&variant == &variants.back() && !text.empty() && variant.name.find(" and ") != std::string::npos) break;
    plan::fill_roles(variant.plan, cost.facts().uses(), kBucketBytes);
    if (!plan::validate(variant.plan, cost.model(), cost.resources(), plan::kPlannable).empty()) continue;
    const auto simulation = cost_model::simulate(cost, variant.plan);
    if (!simulation || !fits(simulation->estimate)) continue;
    text +=
        (text.empty() ? "" : ", or with ") + variant.name + " (" + seconds_text(simulation->estimate.step) + " a step)";
  }
  return text.empty() ? "no single change of recompute, ZeRO, offload or micro-batch makes it fit: it needs more "
                        "stages or devices"
                      : "it would fit with " + text;
}

void tell_misfit(const cost_model::CostModel& cost, const plan::Plan& other, Against& against) {
  const plan::DeviceEstimate* worst = nullptr;
  const auto missing = [](const plan::DeviceEstimate& device) { return device.parts.total() - device.capacity; };
  for (const plan::DeviceEstimate& device : against.estimate->devices) {
    if (missing(device).value <= 0) continue;
    const plan::Role& role = other.roles[static_cast<std::size_t>(device.role)];
    against.reasons.push_back("stage " + std::to_string(role.stage) + " on " + device.device + " needs " +
                              bytes_text(device.parts.total().value) + " of " + bytes_text(device.capacity.value) +
                              ", most of it " + largest_part(device.parts));
    if (worst == nullptr || missing(device) > missing(*worst)) worst = &device;
  }
  against.verdict = against.summary + " does not fit into memory: " + bytes_text(missing(*worst).value) +
                    " missing on " + worst->device;
  against.reasons.push_back(what_would_fit(cost, other));
}

}  // namespace

Against compare_with(const cost_model::CostModel& cost, const plan::Plan& plan, const plan::Estimate& ours,
                     const plan::Plan& other) {
  Against against;
  against.plan = other;
  against.summary = summarize(other);
  if (const auto broken = plan::validate(other, cost.model(), cost.resources(), plan::kPlannable); !broken.empty()) {
    against.verdict = against.summary + " cannot run: it breaks " + std::to_string(broken.size()) +
                      (broken.size() == 1 ? " rule" : " rules");
    for (const Error& error : broken) {
      if (against.reasons.size() == kMostReasons) break;
      against.reasons.push_back(
          error.path + ": " + error.message +
          (error.expected.empty() ? "" : " (expected " + error.expected + ", got " + error.got + ")"));
    }
    return against;
  }
  const auto simulation = cost_model::simulate(cost, other);
  if (!simulation) {
    against.verdict = against.summary + " cannot be simulated: " + simulation.error().message;
    return against;
  }
  against.estimate = simulation->estimate;
  against.differences = part_differences(ours, *against.estimate);
  const bool slower = against.estimate->step >= ours.step;
  const std::string compared = compare_text(against.estimate->step, ours.step);
  const std::string main_part = main_difference(against.differences, slower);
  against.verdict =
      against.summary + " is " + compared + (main_part.empty() || compared == "as fast" ? "" : ", " + main_part);
  if (!fits(*against.estimate)) {
    const std::string time = against.verdict.substr(against.summary.size() + 1);
    tell_misfit(cost, other, against);
    against.reasons.push_back("memory aside it " + time);
  }
  std::string part;
  for (const PartDifference& one : against.differences) {
    const double change = (one.other - one.ours).value;
    if (part.empty() && change != 0 && (change > 0) == slower) part = one.part;
  }
  for (std::string& sentence : layout_differences(cost, plan, other, part)) {
    if (against.reasons.size() < kMostReasons) against.reasons.push_back(std::move(sentence));
  }
  std::string words;
  for (const std::string& word : plan::list_beyond(other, plan::kRunnable))
    words += (words.empty() ? "" : " and ") + word;
  if (!words.empty()) against.reasons.push_back("this version plans but does not yet run its " + words);
  return against;
}

}  // namespace coxswain::planner
