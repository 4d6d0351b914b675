// From a run in virtual time to the Estimate: which part of the step went where (C20), MFU (C21), memory per role.
#include <algorithm>
#include <map>
#include <tuple>

#include "cost_model/price.h"
#include "cost_model/simulator.h"
#include "plan/experts.h"
#include "plan/rank_table.h"

namespace coxswain::cost_model {
namespace {

struct Interval {
  Ticks begin = 0, end = 0;
};

/// Ticks of [begin, end) that are covered by `busy` (sorted by begin, may overlap). `passed` of them ended earlier:
/// begin never falls from call to call.
Ticks covered(const std::vector<Interval>& busy, std::size_t& passed, Ticks begin, Ticks end) {
  Ticks sum = 0, at = begin;
  while (passed < busy.size() && busy[passed].end <= at) ++passed;
  for (std::size_t i = passed; i < busy.size() && busy[i].begin < end; ++i) {
    const Interval& interval = busy[i];
    const Ticks from = std::max(at, interval.begin), to = std::min(end, interval.end);
    if (from >= to) continue;
    sum += to - from;
    at = to;
  }
  return sum;
}

struct RoleParts {
  ComputeTicks compute;
  Ticks exposed = 0, idle = 0;
};

/// C20: compute as it is; compute lost to copies and gaps in which a transfer of this rank was under way are exposed
/// communication; the other gaps are bubble. The parts add up to `makespan`.
RoleParts split_parts(const std::vector<ActionRun>& runs, Ticks makespan) {
  std::vector<Interval> transfers;
  std::vector<const ActionRun*> computes;
  for (const ActionRun& run : runs) {
    if (run.is_compute)
      computes.push_back(&run);
    else
      transfers.push_back({run.transfer_start, run.end});
  }
  std::sort(transfers.begin(), transfers.end(),
            [](const Interval& a, const Interval& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::sort(computes.begin(), computes.end(), [](const ActionRun* a, const ActionRun* b) {
    return std::tie(a->start, a->end) < std::tie(b->start, b->end);
  });
  RoleParts parts;
  Ticks at = 0;
  std::size_t passed = 0;
  const auto gap = [&](Ticks until) {
    const Ticks moving = covered(transfers, passed, at, until);
    parts.exposed += moving;
    parts.idle += until - at - moving;
  };
  for (const ActionRun* run : computes) {
    gap(run->start);
    parts.compute.forward += run->nominal.forward;
    parts.compute.backward += run->nominal.backward;
    parts.compute.recompute += run->nominal.recompute;
    parts.compute.optimizer += run->nominal.optimizer;
    parts.exposed += run->end - run->start - run->nominal.total();
    at = run->end;
  }
  gap(makespan);
  return parts;
}

/// Tokens of one sample: elements of the first integer input, else 1.
std::int64_t tokens_per_sample(const ModelFacts& facts) {
  const model::ModelGraph& graph = facts.graph();
  const std::int64_t unit = facts.static_batch() > 0 ? facts.static_batch() : 1;
  for (const model::Input& input : graph.inputs) {
    if (is_floating_point(graph.values[static_cast<std::size_t>(input.value)].dtype)) continue;
    return std::max<std::int64_t>(1, model::num_elements(graph, input.value, unit) / unit);
  }
  return 1;
}

/// Replicas of a role that hold equally much, the first ones first: all, but where an expert axis does not divide the
/// experts (their lists are equal, what is stored is not).
std::vector<std::vector<int>> equal_replicas(const CostModel& cost, const plan::Plan& plan, const plan::Role& role) {
  const plan::Stage& stage = plan.stages[static_cast<std::size_t>(role.stage)];
  const int expert = stage.replicas[static_cast<std::size_t>(role.replicas.front())].expert;
  if (expert == 1 || cost.facts().expert_splits(expert)) return {role.replicas};
  std::map<int, std::vector<int>> by_place;
  for (const int replica : role.replicas) by_place[plan::expert_place(stage, replica).index].push_back(replica);
  std::vector<std::vector<int>> equal;
  for (auto& [index, replicas] : by_place) equal.push_back(std::move(replicas));
  return equal;
}

plan::DeviceEstimate estimate_device(const CostModel& cost, const plan::Plan& plan, const plan::RankTable& ranks,
                                     int role, const std::vector<int>& of_role, const RoleParts& parts, Ticks step) {
  const plan::Role& shape = plan.roles[static_cast<std::size_t>(role)];
  plan::DeviceEstimate device;
  device.role = role;
  const auto& replicas = plan.stages[static_cast<std::size_t>(shape.stage)].replicas;
  for (const int replica : of_role) {
    const auto size = static_cast<int>(replicas[static_cast<std::size_t>(replica)].devices.size());
    const int first = ranks.rank_of({shape.stage, replica, 0});
    for (int position = 0; position < size; ++position) device.ranks.push_back(first + position);
  }
  const plan::DeviceId id = ranks.device_of(device.ranks.front());
  const cluster::DeviceClass& device_class = cost.resources().device_classes[static_cast<std::size_t>(id.device_class)];
  device.device = device_class.name;
  device.parts = estimate_memory(cost, plan, shape.stage, of_role.front());
  device.peak_memory = device.parts.total() - device.parts.margin;
  device.capacity = device_class.memory.value;
  device.busy_fraction = step > 0 ? static_cast<double>(parts.compute.total()) / static_cast<double>(step) : 0.0;
  return device;
}

}  // namespace

plan::Estimate make_estimate(const CostModel& cost, const plan::Plan& plan, const VirtualRun& run) {
  plan::Estimate estimate;
  Ticks overhead = 0;
  FlopPerSecond peak{0};
  const plan::RankTable table(plan);
  std::vector<std::int64_t> devices(cost.resources().device_classes.size(), 0);
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Replica& replica : stage.replicas) {
      for (const plan::DeviceId device : replica.devices) ++devices[static_cast<std::size_t>(device.device_class)];
    }
  }
  for (std::size_t c = 0; c < devices.size(); ++c) {
    if (devices[c] == 0) continue;
    overhead = std::max(overhead, to_ticks(cost.estimate_step_overhead(static_cast<int>(c))));
    peak += FlopPerSecond(matmul_peak(cost.resources().device_classes[c], plan.precision).value *
                          static_cast<double>(devices[c]));
  }
  const Ticks step = run.makespan + overhead;

  int busiest = 0;
  std::vector<RoleParts> roles;
  double busy = 0;
  std::size_t ranks = 0;
  for (std::size_t role = 0; role < run.roles.size(); ++role) {
    roles.push_back(split_parts(run.roles[role], run.makespan));
    if (roles[role].compute.total() > roles[static_cast<std::size_t>(busiest)].compute.total())
      busiest = static_cast<int>(role);
    for (const auto& replicas : equal_replicas(cost, plan, plan.roles[role])) {
      estimate.devices.push_back(
          estimate_device(cost, plan, table, static_cast<int>(role), replicas, roles.back(), step));
      busy += estimate.devices.back().busy_fraction * static_cast<double>(estimate.devices.back().ranks.size());
      ranks += estimate.devices.back().ranks.size();
    }
  }

  const RoleParts& parts = roles[static_cast<std::size_t>(busiest)];
  estimate.step = to_seconds(step);
  estimate.forward = to_seconds(parts.compute.forward);
  estimate.backward = to_seconds(parts.compute.backward);
  estimate.recompute = to_seconds(parts.compute.recompute);
  estimate.communication_exposed = to_seconds(parts.exposed);
  estimate.bubble = to_seconds(parts.idle);
  estimate.optimizer = to_seconds(parts.compute.optimizer + overhead);
  estimate.bubble_fraction = ranks > 0 ? 1.0 - busy / static_cast<double>(ranks) : 0.0;
  estimate.cost_per_step = estimate_cost_per_step(cost, plan, estimate.step);
  if (step > 0) {
    estimate.tokens_per_second =
        static_cast<double>(plan.batch.global * tokens_per_sample(cost.facts())) / estimate.step.value;
    // C21
    estimate.model_flops_utilization =
        cost.facts().model_flop(plan.batch.global).value / (estimate.step.value * peak.value);
  }
  return estimate;
}

}  // namespace coxswain::cost_model
