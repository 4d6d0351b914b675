#include "launcher/control/corrections.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

namespace coxswain::launcher {
namespace {

using cluster::Source;

// Devices within this of each other stay one class: a search takes longer with every class, and equal devices are
// measured as far apart.
constexpr double kAlikeRatio = 1.25;

bool alike(double a, double b) { return std::max(a, b) <= kAlikeRatio * std::min(a, b); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// A device that was measured, by its number in its class.
struct Rated {
  std::int64_t index = 0;
  double ratio = 1;
};

std::vector<Rated> rated_devices(const MeasuredCluster& cluster, const std::vector<RankBinding>& all_devices,
                                 const Corrections& corrections, int device_class) {
  std::vector<Rated> rated;
  for (std::int64_t i = 0; i < cluster::num_devices(cluster.resources, device_class); ++i) {
    const RankBinding binding = bind_device(cluster, all_devices, {device_class, i});
    for (const DeviceCorrection& device : corrections.devices) {
      if (device.node == binding.node && device.local_device == binding.local_device)
        rated.push_back({i, device.rate_ratio});
    }
  }
  return rated;
}

void scale_class(MeasuredCluster& cluster, int device_class, double ratio) {
  cluster::DeviceClass& device = cluster.resources.device_classes[static_cast<std::size_t>(device_class)];
  const auto scale = [ratio](auto& rate) { rate = {rate.value * ratio, Source::Measured}; };
  scale(device.memory_bandwidth);
  scale(device.peak_float32);
  scale(device.peak_bfloat16);
  for (cluster::MatmulRate& rate : device.matmul_rates) scale(rate.rate);
  device.launch_overhead = {device.launch_overhead.value / ratio, Source::Measured};
  for (cluster::BlockTiming& block : cluster.profile.blocks) {
    if (block.device_class != device.name) continue;
    block.forward = block.forward / ratio;
    block.backward = block.backward / ratio;
  }
  for (cluster::Profile::DeviceRates& rates : cluster.profile.devices) {
    if (rates.device_class != device.name) continue;
    for (Seconds* seconds :
         {&rates.optimizer_per_parameter, &rates.norm_per_parameter, &rates.step_overhead, &rates.action_overhead})
      *seconds = *seconds / ratio;
  }
}

/// `rated`, fastest first, in groups of devices that are alike; each group's rate is its median.
std::vector<std::pair<double, std::vector<Rated>>> group(std::vector<Rated> rated) {
  std::stable_sort(rated.begin(), rated.end(), [](const Rated& a, const Rated& b) { return a.ratio > b.ratio; });
  std::vector<std::pair<double, std::vector<Rated>>> groups;
  for (const Rated& one : rated) {
    if (groups.empty() || !alike(groups.back().second.front().ratio, one.ratio)) groups.push_back({1, {}});
    groups.back().second.push_back(one);
  }
  for (auto& [ratio, members] : groups) {
    std::vector<double> ratios;
    for (const Rated& one : members) ratios.push_back(one.ratio);
    ratio = median(std::move(ratios));
  }
  return groups;
}

void correct_class(MeasuredCluster& cluster, const std::vector<RankBinding>& all_devices,
                   const Corrections& corrections, int device_class,
                   std::vector<cluster::ClusterChange::Slower>& slower) {
  const auto groups = group(rated_devices(cluster, all_devices, corrections, device_class));
  if (groups.empty()) return;
  const std::string& name = cluster.resources.device_classes[static_cast<std::size_t>(device_class)].name;
  for (std::size_t g = 1; g < groups.size(); ++g) {
    // Three digits: the fraction stands in the name of the class.
    const double fraction = std::max(std::round(1000 * groups[g].first / groups.front().first) / 1000, 0.001);
    for (const Rated& one : groups[g].second) slower.push_back({name, one.index, one.index, fraction});
  }
  scale_class(cluster, device_class, groups.front().first);
}

void scale_link(cluster::LinkClass& link, double ratio) {
  link.bandwidth = {link.bandwidth.value * ratio, Source::Measured};
}

void correct_inside(MeasuredCluster& cluster, const Corrections& corrections) {
  std::map<int, std::vector<double>> by_class;
  for (const LinkCorrection& link : corrections.links) {
    const auto at = std::find(cluster.run_node.begin(), cluster.run_node.end(), link.node_a);
    if (link.node_a != link.node_b || at == cluster.run_node.end()) continue;
    const cluster::NodeClass& of = cluster::class_of_node(cluster.resources, at - cluster.run_node.begin());
    by_class[static_cast<int>(&of - cluster.resources.node_classes.data())].push_back(link.bandwidth_ratio);
  }
  for (auto& [node_class, ratios] : by_class)
    scale_link(cluster.resources.node_classes[static_cast<std::size_t>(node_class)].link, median(std::move(ratios)));
}

/// One tier that all nodes share, and every pair of them off alike: the ratio.
std::optional<double> ratio_of_tier(const MeasuredCluster& cluster, const std::vector<LinkCorrection>& between) {
  const cluster::ResourceGraph& graph = cluster.resources;
  const std::size_t nodes = cluster.run_node.size();
  if (graph.tiers.size() != 1 || !graph.link_overrides.empty() || between.empty() ||
      between.size() != nodes * (nodes - 1) / 2)
    return std::nullopt;
  if (std::any_of(graph.nodes.begin(), graph.nodes.end(), [](const auto& group) { return !group.tiers.empty(); }))
    return std::nullopt;
  std::vector<double> ratios;
  for (const LinkCorrection& link : between) ratios.push_back(link.bandwidth_ratio);
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  if (!alike(*least, *most)) return std::nullopt;
  return median(std::move(ratios));
}

void correct_between(MeasuredCluster& cluster, const Corrections& corrections) {
  std::vector<LinkCorrection> between;
  for (const LinkCorrection& link : corrections.links) {
    if (link.node_a != link.node_b) between.push_back(link);
  }
  if (const auto ratio = ratio_of_tier(cluster, between))
    return scale_link(cluster.resources.tiers.front().link, *ratio);
  const auto node_of = [&cluster](int run_node) {
    return std::find(cluster.run_node.begin(), cluster.run_node.end(), run_node) - cluster.run_node.begin();
  };
  for (const LinkCorrection& link : between) {
    const auto [low, high] = std::minmax<std::int64_t>({node_of(link.node_a), node_of(link.node_b)});
    if (high >= static_cast<std::int64_t>(cluster.run_node.size())) continue;
    cluster::LinkOverride corrected{low, high, cluster::link_between_nodes(cluster.resources, low, high)};
    scale_link(corrected.link, link.bandwidth_ratio);
    auto& overrides = cluster.resources.link_overrides;
    std::erase_if(overrides, [&corrected](const cluster::LinkOverride& other) {
      return std::minmax(other.node_a, other.node_b) == std::minmax(corrected.node_a, corrected.node_b);
    });
    overrides.push_back(std::move(corrected));
  }
}

}  // namespace

double Corrections::rate_ratio(int node, int local_device) const {
  for (const DeviceCorrection& device : devices) {
    if (device.node == node && device.local_device == local_device) return device.rate_ratio;
  }
  return 1;
}

double Corrections::bandwidth_ratio(int node_a, int node_b) const {
  for (const LinkCorrection& link : links) {
    if (link.node_a == std::min(node_a, node_b) && link.node_b == std::max(node_a, node_b)) return link.bandwidth_ratio;
  }
  return 1;
}

void Corrections::multiply_rate(int node, int local_device, double ratio) {
  const double now = ratio * rate_ratio(node, local_device);
  const auto place = std::lower_bound(devices.begin(), devices.end(), std::pair(node, local_device),
                                      [](const DeviceCorrection& device, const std::pair<int, int>& wanted) {
                                        return std::pair(device.node, device.local_device) < wanted;
                                      });
  if (place != devices.end() && place->node == node && place->local_device == local_device)
    place->rate_ratio = now;
  else
    devices.insert(place, {node, local_device, now});
}

void Corrections::multiply_bandwidth(int node_a, int node_b, double ratio) {
  const auto [low, high] = std::minmax({node_a, node_b});
  const double now = ratio * bandwidth_ratio(low, high);
  const auto place = std::lower_bound(links.begin(), links.end(), std::pair(low, high),
                                      [](const LinkCorrection& link, const std::pair<int, int>& wanted) {
                                        return std::pair(link.node_a, link.node_b) < wanted;
                                      });
  if (place != links.end() && place->node_a == low && place->node_b == high)
    place->bandwidth_ratio = now;
  else
    links.insert(place, {low, high, now});
}

Json to_json(const Corrections& corrections) {
  JsonArray devices, links;
  for (const DeviceCorrection& device : corrections.devices)
    devices.push_back(
        JsonObject{{"node", device.node}, {"local_device", device.local_device}, {"rate_ratio", device.rate_ratio}});
  for (const LinkCorrection& link : corrections.links)
    links.push_back(
        JsonObject{{"node_a", link.node_a}, {"node_b", link.node_b}, {"bandwidth_ratio", link.bandwidth_ratio}});
  return JsonObject{{"devices", std::move(devices)}, {"links", std::move(links)}};
}

Result<Corrections> corrections_from_json(const Json& json) {
  constexpr std::int64_t kMost = 1 << 20;
  JsonReader reader(json, "corrections");
  Corrections corrections;
  for (const Json& item : reader.array("devices")) {
    JsonReader device(item, "corrections.devices");
    corrections.devices.push_back({static_cast<int>(device.integer("node", 0, kMost)),
                                   static_cast<int>(device.integer("local_device", 0, kMost)),
                                   device.number("rate_ratio")});
    COX_TRY_VOID(device.finish());
  }
  for (const Json& item : reader.array("links")) {
    JsonReader link(item, "corrections.links");
    corrections.links.push_back({static_cast<int>(link.integer("node_a", 0, kMost)),
                                 static_cast<int>(link.integer("node_b", 0, kMost)), link.number("bandwidth_ratio")});
    COX_TRY_VOID(link.finish());
  }
  COX_TRY_VOID(reader.finish());
  return corrections;
}

std::vector<cluster::ClusterChange::Slower> correct(MeasuredCluster& cluster,
                                                    const std::vector<RankBinding>& all_devices,
                                                    const Corrections& corrections) {
  std::vector<cluster::ClusterChange::Slower> slower;
  if (!corrections.devices.empty()) {
    for (std::size_t c = 0; c < cluster.resources.device_classes.size(); ++c)
      correct_class(cluster, all_devices, corrections, static_cast<int>(c), slower);
  }
  correct_inside(cluster, corrections);
  correct_between(cluster, corrections);
  return slower;
}

}  // namespace coxswain::launcher
