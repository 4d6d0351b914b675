// Why no other family of plans was taken, and what one change of the hardware would buy.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "planner/changed_cost.h"
#include "planner/compare.h"
#include "planner/families.h"
#include "planner/objective.h"
#include "planner/outcome.h"

namespace coxswain::planner {
namespace {

/// Up to here each reason is a search of its own: few devices, or more with a search that was short.
constexpr std::int64_t kMaxDevices = 64, kMaxCandidates = 400000;
constexpr std::int64_t kMoreDevices = 1024, kFewCandidates = 2000;
/// Of each of these searches.
constexpr std::int64_t kBudget = 50000;
constexpr std::size_t kMaxLinks = 4;

bool is_quick(const Request& request, const PlanResult& result) {
  const std::int64_t devices = cluster::num_devices(request.cost->resources());
  return (devices <= kMaxDevices && result.candidates_costed <= kMaxCandidates) ||
         (devices <= kMoreDevices && result.candidates_costed <= kFewCandidates);
}

/// By more than what is worth telling.
bool better(const Request& request, const plan::Estimate& one, const plan::Estimate& other) {
  constexpr double kWorthIt = 1 - 0.0005;
  if (request.objective == Objective::Cost && one.cost_per_step && other.cost_per_step)
    return one.cost_per_step->value < other.cost_per_step->value * kWorthIt;
  return one.step.value < other.step.value * kWorthIt;
}

/// Beside the chosen plan: "12.3 % slower, mostly by bubble (..)", or "costs 3.1 % more (..)".
std::string judge(const Request& request, const plan::Estimate& ours, const plan::Estimate& other) {
  if (request.objective == Objective::Cost && ours.cost_per_step && other.cost_per_step) {
    const double ratio = *other.cost_per_step / *ours.cost_per_step - 1;
    char text[64];
    std::snprintf(text, sizeof text, "costs %.1f %% %s: ", std::abs(ratio) * 100, ratio < 0 ? "less" : "more");
    return text + usd_text(*other.cost_per_step) + " a step, " + compare_text(other.step, ours.step);
  }
  std::string text = compare_text(other.step, ours.step);
  if (text == "as fast") return text;
  const std::string main_part = main_difference(part_differences(ours, other), other.step > ours.step);
  return text + (main_part.empty() ? "" : ", " + main_part);
}

struct Judged {
  std::vector<Rejected> rejected;
  std::optional<PlanResult> best;  // the least of all families, where they were searched
};

/// The best of `seen` that belongs to the family; null: none does.
const RunnerUp* best_of(const Request& request, const Family& family, const std::vector<RunnerUp>& seen) {
  const RunnerUp* best = nullptr;
  for (const RunnerUp& one : seen) {
    if (belongs(family, one.plan) && (best == nullptr || better(request, one.estimate, best->estimate))) best = &one;
  }
  return best;
}

Judged judge_families(const Request& request, const PlanResult& result) {
  const bool quick = is_quick(request, result);
  Judged judged;
  std::vector<Family> families = other_families(request, result.plan);
  std::vector<RunnerUp> seen = result.runners_up;  // of the search, and of every family
  std::vector<std::int64_t> costed(families.size(), 1);
  std::vector<std::optional<Error>> failures(families.size());
  std::vector<std::optional<RunnerUp>> own(families.size());  // what its own search found
  for (std::size_t i = 0; i < families.size(); ++i) {
    Family& family = families[i];
    if (!quick || !family.excluded_by.empty()) continue;
    family.request.max_candidates = std::min(family.request.max_candidates, kBudget);
    auto found = search_objective(family.request);
    if (!found) {
      failures[i] = found.error();
      continue;
    }
    costed[i] = found->candidates_costed;
    own[i] = RunnerUp{found->plan, found->estimate, summarize(found->plan)};
    seen.push_back(*own[i]);
    if (!judged.best || better(request, found->estimate, judged.best->estimate)) judged.best = std::move(*found);
  }
  for (std::size_t i = 0; i < families.size(); ++i) {
    Rejected rejected;
    rejected.family = families[i].name;
    const RunnerUp* best = best_of(request, families[i], seen);
    if (own[i] && (best == nullptr || better(request, own[i]->estimate, best->estimate))) best = &*own[i];
    if (!families[i].excluded_by.empty()) {
      rejected.reason = "excluded by " + families[i].excluded_by;
    } else if (best != nullptr) {
      rejected.reason = judge(request, result.estimate, best->estimate);
      rejected.example = best->summary;
      rejected.count = costed[i];
      rejected.step = best->estimate.step;
    } else if (failures[i] && failures[i]->code != ErrorCode::Unimplemented) {
      const bool memory = failures[i]->code == ErrorCode::ResourceExhausted;
      rejected.reason = memory ? failures[i]->message : "there is no such plan";
      rejected.example = failures[i]->got;
    } else {
      continue;
    }
    judged.rejected.push_back(std::move(rejected));
  }
  return judged;
}

/// `found` takes the place of the plan, which becomes the first runner-up.
void adopt(const Request& request, PlanResult found, PlanResult& result) {
  result.runners_up.insert(result.runners_up.begin(), RunnerUp{result.plan, result.estimate, summarize(result.plan)});
  if (result.runners_up.size() > static_cast<std::size_t>(std::max(1, request.top_k))) result.runners_up.pop_back();
  result.plan = std::move(found.plan);
  result.estimate = std::move(found.estimate);
  result.binding_constraint = describe_binding(*request.cost, result.plan, result.estimate);
  const bool of_cost = request.objective == Objective::Cost && result.lower_bound_cost;
  result.lower_bound_step = std::min(result.lower_bound_step, result.estimate.step);
  result.optimality_gap = of_cost ? *result.estimate.cost_per_step / *result.lower_bound_cost - 1
                                  : result.estimate.step / result.lower_bound_step - 1;
  describe_devices(request, result);
}

class Sensitivities {
 public:
  Sensitivities(const Request& request, PlanResult& result)
      : request_(request), result_(result), graph_(request.cost->resources()), quick_(is_quick(request, result)) {}

  void add_all() {
    if (quick_) add_memory();  // the same plan gains nothing by it
    add_links();
    add_speed();
    if (!quick_) return;
    add_more_devices();
    add_fewer_devices();
  }

 private:
  /// On changed hardware: the best plan of a new search, at worst the same plan again. `same_plan`: it stands there
  /// too.
  void try_change(const std::string& change, cluster::ResourceGraph changed, std::vector<double> speed = {},
                  bool same_plan = true) {
    const ChangedCost cost(*request_.cost, std::move(changed), std::move(speed));
    // Where devices are added, an equal plan leaves them unused.
    Sensitivity best{change, result_.estimate.step, ""};
    if (same_plan) {
      const auto simulation = cost_model::simulate(cost, result_.plan);
      if (simulation) best.step = simulation->estimate.step;
    }
    if (quick_) {
      const auto take = [&](const Result<PlanResult>& found) {
        if (found && found->estimate.step.value < best.step.value * (1 - 1e-9))
          best = Sensitivity{change, found->estimate.step, summarize(found->plan)};
      };
      take(search_on(cost, request_, request_.device_limits));
      // The same axes with other cuts and recompute, which a wide search may pass over.
      if (same_plan) take(search_on(cost, same_axes(), request_.device_limits));
    }
    result_.sensitivities.push_back(std::move(best));
  }

  /// Pinned to the axes, ZeRO stages, micro-batch and schedule of the plan.
  [[nodiscard]] Request same_axes() const {
    Request request = request_;
    Constraints& c = request.constraints;
    c.data.clear();
    c.tensor.clear();
    c.zero.clear();
    const auto insert = [](std::vector<int>& list, int value) {
      if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
    };
    for (const plan::Stage& stage : result_.plan.stages) {
      insert(c.data, static_cast<int>(stage.replicas.size()));
      insert(c.tensor, stage.replicas.front().tensor);
      insert(c.zero, stage.zero_stage);
    }
    c.pipeline = {static_cast<int>(result_.plan.stages.size())};
    c.micro = {result_.plan.batch.micro};
    if (result_.plan.stages.size() > 1) c.schedule = {result_.plan.schedule};
    return request;
  }

  [[nodiscard]] static Result<PlanResult> search_on(const cost_model::CostModel& cost, Request request,
                                                    const std::vector<std::int64_t>& limits) {
    request.cost = &cost;
    request.top_k = 1;
    request.explain_failure = false;
    request.rough = true;
    request.device_limits = limits;
    request.max_candidates = std::min(request.max_candidates, kBudget);
    return search_objective(request);
  }

  /// The class of the device that is fullest.
  [[nodiscard]] int fullest_class() const {
    const auto filled = [](const plan::DeviceEstimate& device) {
      return static_cast<double>(device.parts.total().value) /
             static_cast<double>(std::max<std::int64_t>(1, device.capacity.value));
    };
    const auto fullest = std::max_element(result_.estimate.devices.begin(), result_.estimate.devices.end(),
                                          [&](const auto& a, const auto& b) { return filled(a) < filled(b); });
    for (std::size_t c = 0; c < graph_.device_classes.size(); ++c) {
      if (graph_.device_classes[c].name == fullest->device) return static_cast<int>(c);
    }
    return 0;
  }

  void add_memory() {
    constexpr std::int64_t kMore = 40'000'000'000, kWorthIt = 8'000'000'000;
    const auto c = static_cast<std::size_t>(fullest_class());
    const std::string& name = graph_.device_classes[c].name;
    const std::int64_t bytes = graph_.device_classes[c].memory.value.value;
    if (bytes >= kWorthIt) {
      cluster::ResourceGraph more = graph_;
      more.device_classes[c].memory.value = Bytes(bytes + kMore);
      try_change("40 GB more on each " + name, std::move(more));
    }
    cluster::ResourceGraph twice = graph_;
    twice.device_classes[c].memory.value = Bytes(2 * bytes);
    try_change("twice the memory of " + name, std::move(twice));
  }

  void add_links() {
    cluster::ResourceGraph graph = graph_;
    const std::size_t count = std::min(links_in_use(graph, result_.plan).size(), kMaxLinks);
    for (std::size_t i = 0; i < count; ++i) {
      cluster::ResourceGraph faster = graph_;
      cluster::LinkClass& link = *links_in_use(faster, result_.plan)[i];
      link.bandwidth.value = link.bandwidth.value * 2.0;
      const std::string change = "twice the bandwidth of " + link.name;
      try_change(change, std::move(faster));
    }
  }

  [[nodiscard]] std::vector<int> used_classes() const {
    std::vector<int> used;
    for (const plan::Stage& stage : result_.plan.stages) {
      for (const plan::Replica& replica : stage.replicas) {
        if (std::find(used.begin(), used.end(), replica.devices.front().device_class) == used.end())
          used.push_back(replica.devices.front().device_class);
      }
    }
    std::sort(used.begin(), used.end());
    return used;
  }

  void add_speed() {
    for (const int c : used_classes()) {
      std::vector<double> speed(graph_.device_classes.size(), 1);
      speed[static_cast<std::size_t>(c)] = 2;
      try_change(graph_.device_classes[static_cast<std::size_t>(c)].name + " twice as fast", graph_, std::move(speed));
    }
  }

  void add_more_devices() {
    if (!request_.device_limits.empty()) return;
    const bool one_node = cluster::num_nodes(graph_) == 1;
    for (std::size_t group = 0; group < graph_.nodes.size(); ++group) {
      const auto node_class = static_cast<std::size_t>(graph_.nodes[group].node_class);
      const cluster::NodeClass& node = graph_.node_classes[node_class];
      if (!one_node) {
        cluster::ResourceGraph grown = graph_;
        ++grown.nodes[group].count;
        if (cluster::validate(grown).empty()) try_change("one more node " + node.name, std::move(grown), {}, false);
        continue;
      }
      // Without a link of its own a lone device says nothing about two.
      if (!(node.link.bandwidth.value.value > 0)) continue;
      for (std::size_t entry = 0; entry < node.devices.size(); ++entry) {
        cluster::ResourceGraph grown = graph_;
        ++grown.node_classes[node_class].devices[entry].count;
        const auto c = static_cast<std::size_t>(node.devices[entry].device_class);
        try_change("one more " + graph_.device_classes[c].name, std::move(grown), {}, false);
      }
    }
  }

  void add_fewer_devices() {
    std::vector<std::int64_t> all;
    for (std::size_t c = 0; c < graph_.device_classes.size(); ++c)
      all.push_back(request_.device_limits.empty() ? cluster::num_devices(graph_, static_cast<int>(c))
                                                   : request_.device_limits[c]);
    for (const int c : used_classes()) {
      std::vector<std::int64_t> fewer = all;
      --fewer[static_cast<std::size_t>(c)];
      const auto found = search_on(*request_.cost, request_, fewer);
      if (found)
        result_.sensitivities.push_back({"one " + graph_.device_classes[static_cast<std::size_t>(c)].name + " less",
                                         found->estimate.step, summarize(found->plan)});
    }
  }

  const Request& request_;
  PlanResult& result_;
  const cluster::ResourceGraph& graph_;
  bool quick_;
};

}  // namespace

void add_reasons(const Request& request, PlanResult& result, bool keep_plan) {
  if (request.constraints.order) return;  // no search finds another order
  constexpr int kRounds = 3;
  Judged judged;
  for (int round = 0; round < kRounds; ++round) {
    judged = judge_families(request, result);
    if (keep_plan || round + 1 == kRounds || !judged.best || !better(request, judged.best->estimate, result.estimate))
      break;
    adopt(request, std::move(*judged.best), result);
  }
  result.rejected.insert(result.rejected.end(), judged.rejected.begin(), judged.rejected.end());
  result.sensitivities.clear();
  Sensitivities(request, result).add_all();
}

}  // namespace coxswain::planner
