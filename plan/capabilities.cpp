#include "plan/capabilities.h"

#include <algorithm>

#include "plan/plan.h"

namespace coxswain::plan {

bool has_precision(const Capabilities& capabilities, Precision precision) {
  switch (precision) {
    case Precision::Float32: return true;
    case Precision::BFloat16: return capabilities.bfloat16;
    case Precision::Float16: return capabilities.float16;
  }
  return false;
}

bool has_schedule(const Capabilities& capabilities, ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::GPipe:
    case ScheduleKind::OneForwardOneBackward: return true;
    case ScheduleKind::ZeroBubbleH1:
    case ScheduleKind::ZeroBubbleH2: return capabilities.zero_bubble;
    case ScheduleKind::ZeroBubbleV: return capabilities.zero_bubble && capabilities.chunks;
    case ScheduleKind::Interleaved: return capabilities.chunks;
    case ScheduleKind::Custom:
    case ScheduleKind::CustomV: return capabilities.zero_bubble && capabilities.chunks;
  }
  return false;
}

std::vector<std::string> list_beyond(const Plan& plan, const Capabilities& capabilities) {
  std::vector<std::string> beyond;
  const auto any_stage = [&](auto holds) { return std::any_of(plan.stages.begin(), plan.stages.end(), holds); };
  const auto any_replica = [&](auto holds) {
    return any_stage(
        [&](const Stage& stage) { return std::any_of(stage.replicas.begin(), stage.replicas.end(), holds); });
  };
  if (any_replica([&](const Replica& replica) { return replica.tensor > capabilities.max_tensor; }))
    beyond.emplace_back("tensor parallelism");
  if (any_replica([&](const Replica& replica) { return replica.context > capabilities.max_context; }))
    beyond.emplace_back("context parallelism");
  if (any_replica([&](const Replica& replica) { return replica.expert > capabilities.max_expert; }))
    beyond.emplace_back("expert parallelism");
  if (any_stage([&](const Stage& stage) { return stage.zero_stage > capabilities.max_zero_stage; }))
    beyond.emplace_back("ZeRO");
  const auto selective = [](const Stage& stage) {
    return std::count(stage.recompute.begin(), stage.recompute.end(), Recompute::Selective) > 0;
  };
  if (!capabilities.selective_recompute && any_stage(selective)) beyond.emplace_back("selective recompute");
  if (!capabilities.offload && any_stage([](const Stage& stage) { return stage.offload != Offload::None; }))
    beyond.emplace_back("offload");
  if (!has_precision(capabilities, plan.precision)) beyond.emplace_back(to_text(plan.precision));
  if (!has_schedule(capabilities, plan.schedule))
    beyond.emplace_back(plan.schedule == ScheduleKind::Interleaved ? "interleaved schedules" : "zero-bubble schedules");
  return beyond;
}

}  // namespace coxswain::plan
