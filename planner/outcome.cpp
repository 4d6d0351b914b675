#include "planner/outcome.h"

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>

namespace coxswain::planner {
namespace {

std::vector<int> replica_totals(const Candidate& candidate) {
  std::vector<int> totals;
  for (const CandidateStage& stage : candidate.stages) totals.push_back(stage.composition.replicas());
  return totals;
}

int num_devices(const Candidate& candidate) {
  int sum = 0;
  for (const CandidateStage& stage : candidate.stages) sum += stage.composition.devices.total();
  return sum;
}

/// Least bytes missing on the worst of `stages` equal devices of `device_class` when blocks are cut for memory alone.
std::int64_t least_excess(const SearchSpace& space, int device_class, std::int64_t samples, int stages) {
  const SpanCosts& spans = *space.spans;
  const int blocks = spans.num_blocks();
  const std::int64_t capacity =
      spans.cost().resources().device_classes[static_cast<std::size_t>(device_class)].memory.value.value;
  const SampleTable& table = spans.table({device_class, {}, 1}, samples);
  constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
  std::vector<std::int64_t> best(static_cast<std::size_t>(blocks) + 1,
                                 kNever);  // of the blocks from here on, on the stages so far
  best[static_cast<std::size_t>(blocks)] = std::numeric_limits<std::int64_t>::min();
  for (int later = 0; later < stages; ++later) {
    std::vector<std::int64_t> next(best.size(), kNever);
    for (int first = 0; first < blocks; ++first) {
      for (int end = first + 1; end <= blocks; ++end) {
        if (best[static_cast<std::size_t>(end)] == kNever) continue;
        const Fit fit = spans.fit(table, {first, end, later + 1, 2});
        next[static_cast<std::size_t>(first)] = std::min(
            next[static_cast<std::size_t>(first)], std::max(best[static_cast<std::size_t>(end)], fit.bytes - capacity));
      }
    }
    best = std::move(next);
  }
  return best.front();
}

}  // namespace

std::vector<cluster::LinkClass*> links_in_use(cluster::ResourceGraph& graph, const plan::Plan& plan) {
  std::set<std::int64_t> nodes;
  std::set<std::int64_t> crowded;  // with two or more used devices
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Replica& replica : stage.replicas) {
      for (const plan::DeviceId device : replica.devices) {
        const std::int64_t node = cluster::locate(graph, device).node;
        if (!nodes.insert(node).second) crowded.insert(node);
      }
    }
  }
  std::vector<cluster::LinkClass*> links;
  const auto add = [&](const cluster::LinkClass& link) {
    auto* changeable = const_cast<cluster::LinkClass*>(&link);  // of `graph`, which is ours to change
    if (std::find(links.begin(), links.end(), changeable) == links.end()) links.push_back(changeable);
  };
  for (const std::int64_t node : crowded) add(cluster::link_between_nodes(graph, node, node));
  // Neighbours are enough: tiers nest.
  for (auto a = nodes.begin(); a != nodes.end(); ++a) {
    for (auto b = std::next(a); b != nodes.end() && std::distance(a, b) < 64; ++b)
      add(cluster::link_between_nodes(graph, *a, *b));
  }
  return links;
}

bool operator<(const Simulated& a, const Simulated& b) {
  const auto key = [](const Simulated& s) {
    return std::tuple{s.step, s.candidate.stages.size(), num_devices(s.candidate), s.candidate.count,
                      static_cast<int>(s.candidate.schedule)};
  };
  return key(a) < key(b);
}

std::vector<Simulated> pick_diverse(const std::vector<Simulated>& ascending, std::size_t most) {
  std::vector<Simulated> picked;
  std::set<std::tuple<std::vector<int>, std::int64_t, std::vector<int>>> seen;
  for (const Simulated& one : ascending) {
    if (picked.size() == most) break;
    if (seen.insert({replica_totals(one.candidate), one.candidate.micro, axes_of(one.candidate)}).second)
      picked.push_back(one);
  }
  return picked;
}

std::string describe_binding(const cost_model::CostModel& cost, const plan::Plan& plan,
                             const plan::Estimate& estimate) {
  bool recomputes = false;
  for (const plan::Stage& stage : plan.stages)
    recomputes = recomputes || std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::Full) > 0;
  const plan::DeviceEstimate* fullest = nullptr;
  const auto filled = [](const plan::DeviceEstimate& device) {
    return static_cast<double>(device.parts.total().value) /
           static_cast<double>(std::max<std::int64_t>(1, device.capacity.value));
  };
  for (const plan::DeviceEstimate& device : estimate.devices) {
    if (fullest == nullptr || filled(device) > filled(*fullest)) fullest = &device;
  }
  constexpr double kNearlyFull = 0.9;
  if (fullest != nullptr && recomputes && filled(*fullest) > 0.5 && estimate.recompute.value > 0) {
    return "memory of " + fullest->device + ": blocks are recomputed to fit " + bytes_text(fullest->capacity.value);
  }
  if (fullest != nullptr && filled(*fullest) > kNearlyFull)
    return "memory of " + fullest->device + ": " + bytes_text(fullest->parts.total().value) + " of " +
           bytes_text(fullest->capacity.value);
  const double exposed = estimate.communication_exposed.value, bubble = estimate.bubble.value,
               compute = (estimate.forward + estimate.backward + estimate.recompute).value;
  if (exposed > bubble && exposed > 0.25 * compute) {
    cluster::ResourceGraph graph = cost.resources();
    const auto links = links_in_use(graph, plan);
    const auto slowest = std::min_element(links.begin(), links.end(), [](const auto* a, const auto* b) {
      return a->bandwidth.value < b->bandwidth.value;
    });
    return "communication over " + (slowest == links.end() ? std::string("the network") : (*slowest)->name);
  }
  if (bubble > 0.25 * compute) return "idle time in the pipeline: few micro-batches for its stages";
  std::string classes;
  std::set<std::string> seen;
  for (const plan::DeviceEstimate& device : estimate.devices) {
    if (seen.insert(device.device).second) classes += (classes.empty() ? "" : ", ") + device.device;
  }
  return "compute of " + classes;
}

Error describe_infeasible(const SearchSpace& space, const PipelineProblem::Misfit& misfit) {
  const cluster::ResourceGraph& graph = space.spans->cost().resources();
  const std::int64_t fixed = space.spans->cost().facts().static_batch();
  const std::int64_t samples = fixed > 0 ? fixed : 1;
  int roomiest = 0;
  std::int64_t devices = 0;
  for (std::size_t c = 0; c < graph.device_classes.size(); ++c) {
    const std::int64_t count = cluster::num_devices(graph, static_cast<int>(c));
    if (count > 0 && (devices == 0 || graph.device_classes[c].memory.value >
                                          graph.device_classes[static_cast<std::size_t>(roomiest)].memory.value)) {
      roomiest = static_cast<int>(c);
      devices = count;
    }
  }
  const cluster::DeviceClass& roomy = graph.device_classes[static_cast<std::size_t>(roomiest)];
  const int stages =
      space.allowed_stages.empty()
          ? 1
          : std::min<int>(space.allowed_stages.back(), static_cast<int>(std::min<std::int64_t>(devices, 64)));
  std::int64_t excess = least_excess(space, roomiest, samples, stages);
  std::string where = roomy.name, got;
  if (misfit.device_class >= 0 && (excess <= 0 || misfit.least_excess < excess)) {
    // Constraints or the mixture of devices, not the cluster as a whole, stand in the way.
    excess = misfit.least_excess;
    where = graph.device_classes[static_cast<std::size_t>(misfit.device_class)].name;
    got = "blocks [" + std::to_string(misfit.first) + "," + std::to_string(misfit.end) +
          ") miss least: " + bytes_text(excess) + " more than the " +
          bytes_text(graph.device_classes[static_cast<std::size_t>(misfit.device_class)].memory.value.value) + " of " +
          where;
  } else {
    got = "cut into " + std::to_string(stages) + " stages, " + std::to_string(samples) +
          " sample(s) a micro-batch: " + bytes_text(excess) + " more than the " + bytes_text(roomy.memory.value.value) +
          " of " + where + " on the fullest device";
  }
  std::string hint = "give " + where + " " + bytes_text(excess) + " more memory";
  for (int more = stages + 1; more <= std::min(space.spans->num_blocks(), stages + 16); ++more) {
    if (least_excess(space, roomiest, samples, more) > 0) continue;
    hint += ", or use " + std::to_string(more) + " devices like " + roomy.name;
    break;
  }
  if (space.request->constraints.recompute && *space.request->constraints.recompute != "full")
    hint += ", or allow recompute";
  return Error{ErrorCode::ResourceExhausted,
               "no plan fits into memory: " + bytes_text(excess) + " missing on " + where,
               "plan",
               "a plan whose every device holds its stage",
               got,
               hint};
}

}  // namespace coxswain::planner
