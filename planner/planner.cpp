// The entry: one search, and what one change would buy.
#include "planner/planner.h"

#include "planner/changed_cost.h"
#include "planner/replan.h"
#include "planner/search_report.h"

namespace coxswain::planner {
namespace {

/// Up to so many devices a search takes no time.
constexpr std::int64_t kQuickDevices = 8;

/// What one more device of each class would do; only where the search takes no time.
void add_device_sensitivities(const Request& request, PlanResult& result) {
  const cluster::ResourceGraph& graph = request.cost->resources();
  if (cluster::num_devices(graph) > kQuickDevices || graph.nodes.size() != 1 || graph.nodes.front().count != 1) return;
  for (std::size_t entry = 0;
       entry < graph.node_classes[static_cast<std::size_t>(graph.nodes.front().node_class)].devices.size(); ++entry) {
    cluster::ResourceGraph grown = graph;
    cluster::DeviceCount& count =
        grown.node_classes[static_cast<std::size_t>(grown.nodes.front().node_class)].devices[entry];
    ++count.count;
    const std::string name = grown.device_classes[static_cast<std::size_t>(count.device_class)].name;
    // Without a measured link of its own a lone device says nothing about two.
    if (!(grown.node_classes[static_cast<std::size_t>(grown.nodes.front().node_class)].link.bandwidth.value.value > 0))
      continue;
    const ChangedCost cost(*request.cost, std::move(grown));
    Request more = request;
    more.cost = &cost;
    more.top_k = 1;
    const Result<PlanResult> found = search_once(more);
    if (found) result.sensitivities.push_back({"one more " + name, found->estimate.step});
  }
}

}  // namespace

Result<PlanResult> find_plan(const Request& request) {
  if (request.running) return replan(request, find_plan);
  COX_TRY(PlanResult result, search_once(request));
  result.sensitivities = link_sensitivities(*request.cost, result.plan);
  add_device_sensitivities(request, result);
  return result;
}

}  // namespace coxswain::planner
