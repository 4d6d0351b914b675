#include "cluster/resource_graph.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "common/ensure.h"
#include "common/hash.h"

namespace coxswain::cluster {
namespace {

std::int64_t count_of(const NodeClass& node_class, int device_class) {
  std::int64_t count = 0;
  for (const DeviceCount& entry : node_class.devices) {
    if (entry.device_class == device_class) count += entry.count;
  }
  return count;
}

/// Devices of the node class that stand before the first one of `device_class`.
std::int64_t offset_of(const NodeClass& node_class, int device_class) {
  std::int64_t offset = 0;
  for (const DeviceCount& entry : node_class.devices) {
    if (entry.device_class == device_class) return offset;
    offset += entry.count;
  }
  return offset;
}

const NodeClass& class_of_group(const ResourceGraph& graph, const NodeGroup& group) {
  return graph.node_classes[static_cast<std::size_t>(group.node_class)];
}

/// The first of `tiers` whose domain holds both nodes, or null; nodes are counted from where the domains start.
const LinkClass* first_tier(const std::vector<NetworkTier>& tiers, std::int64_t a, std::int64_t b) {
  for (const NetworkTier& tier : tiers) {
    if (tier.nodes_per_domain == 0 || a / tier.nodes_per_domain == b / tier.nodes_per_domain) return &tier.link;
  }
  return nullptr;
}

/// The tier that holds both nodes among those of their group and the groups that continue it, or null.
const LinkClass* tier_in_group(const ResourceGraph& graph, std::int64_t a, std::int64_t b) {
  for (std::size_t g = 0; g < graph.nodes.size();) {
    const NodeGroup& first = graph.nodes[g];
    std::int64_t count = 0;
    do count += graph.nodes[g++].count;
    while (g < graph.nodes.size() && graph.nodes[g].continues);
    const bool holds_a = a < count, holds_b = b < count;
    if (holds_a || holds_b) return holds_a && holds_b ? first_tier(first.tiers, a, b) : nullptr;
    a -= count;
    b -= count;
  }
  return nullptr;
}

/// Collects problems of one document.
class Checker {
 public:
  explicit Checker(const ResourceGraph& graph) : graph_(graph) {}

  std::vector<Error> run() {
    check_device_classes();
    check_node_classes();
    check_nodes();
    check_network(problems_.empty());
    return std::move(problems_);
  }

 private:
  void add(std::string path, std::string message, std::string expected, std::string got, std::string hint = "") {
    problems_.push_back(Error{ErrorCode::InvalidArgument, std::move(message), std::move(path), std::move(expected),
                              std::move(got), std::move(hint)});
  }

  /// NaN and infinity are no JSON.
  static std::string number_text(double value) {
    return std::isfinite(value) ? to_text(Json(value)) : std::to_string(value);
  }

  void positive(const std::string& path, double value) {
    if (!(value > 0) || !std::isfinite(value))
      add(path, "value must be positive", "a number above 0", number_text(value));
  }

  void non_negative(const std::string& path, double value) {
    if (!(value >= 0) || !std::isfinite(value))
      add(path, "value must not be negative", "a number of at least 0", number_text(value));
  }

  void check_link(const std::string& path, const LinkClass& link) {
    positive(path + ".bandwidth_bytes_per_second", link.bandwidth.value.value);
    non_negative(path + ".latency_seconds", link.latency.value.value);
    non_negative(path + ".price_usd_per_byte", link.price.value.value);
    if (link.sharing < 0)
      add(path + ".sharing", "value must not be negative", "a number of at least 0", std::to_string(link.sharing));
  }

  void check_name(const std::string& path, const std::string& name, std::set<std::string>& seen) {
    if (name.empty()) add(path + ".name", "name is empty", "a name", "\"\"");
    if (!seen.insert(name).second) add(path + ".name", "name is used twice", "a name of its own", name);
  }

  void check_device_classes() {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < graph_.device_classes.size(); ++i) {
      const DeviceClass& device = graph_.device_classes[i];
      const std::string path = "device_classes[" + std::to_string(i) + "]";
      check_name(path, device.name, seen);
      positive(path + ".memory_bytes", static_cast<double>(device.memory.value.value));
      positive(path + ".memory_bandwidth_bytes_per_second", device.memory_bandwidth.value.value);
      positive(path + ".peak_float32_flop_per_second", device.peak_float32.value.value);
      non_negative(path + ".peak_bfloat16_flop_per_second", device.peak_bfloat16.value.value);
      non_negative(path + ".launch_overhead_seconds", device.launch_overhead.value.value);
      non_negative(path + ".price_usd_per_hour", device.price.value.value);
      non_negative(path + ".cores", device.cores);
      check_rates(path, device);
    }
  }

  void check_rates(const std::string& path, const DeviceClass& device) {
    for (std::size_t i = 0; i < device.matmul_rates.size(); ++i) {
      const MatmulRate& rate = device.matmul_rates[i];
      const std::string here = path + ".matmul_rates[" + std::to_string(i) + "]";
      positive(here + ".size", static_cast<double>(rate.size));
      positive(here + ".flop_per_second", rate.rate.value.value);
      for (std::size_t j = 0; j < i; ++j) {
        const MatmulRate& before = device.matmul_rates[j];
        if (before.dtype == rate.dtype && before.size >= rate.size) {
          add(here + ".size", "sizes of one dtype must ascend", "more than " + std::to_string(before.size),
              std::to_string(rate.size));
          break;
        }
      }
    }
  }

  void check_node_classes() {
    std::set<std::string> seen;
    for (std::size_t i = 0; i < graph_.node_classes.size(); ++i) {
      const NodeClass& node = graph_.node_classes[i];
      const std::string path = "node_classes[" + std::to_string(i) + "]";
      check_name(path, node.name, seen);
      std::set<int> classes;
      std::int64_t devices = 0;
      for (std::size_t j = 0; j < node.devices.size(); ++j) {
        const DeviceCount& entry = node.devices[j];
        const std::string here = path + ".devices[" + std::to_string(j) + "]";
        if (entry.device_class < 0 || entry.device_class >= static_cast<int>(graph_.device_classes.size())) {
          add(here + ".device_class", "no such device class",
              "an index below " + std::to_string(graph_.device_classes.size()), std::to_string(entry.device_class));
        }
        if (!classes.insert(entry.device_class).second)
          add(here + ".device_class", "device class is listed twice", "one entry a class",
              std::to_string(entry.device_class), "add the counts up");
        if (entry.count < 1) add(here + ".count", "count must be positive", "at least 1", std::to_string(entry.count));
        devices += entry.count < 1 ? 2 : entry.count;  // a wrong count hides no wrong link
      }
      if (node.cores < 0)
        add(path + ".cores", "value must not be negative", "a number of at least 0", std::to_string(node.cores));
      if (devices > 1) check_link(path + ".link", node.link);
      if (!node.host_link.name.empty()) check_link(path + ".host_link", node.host_link);
    }
  }

  /// Links and nesting of one list of tiers.
  void check_tiers(const std::string& path, const std::vector<NetworkTier>& tiers) {
    for (std::size_t i = 0; i < tiers.size(); ++i) {
      const std::string here = path + "[" + std::to_string(i) + "]";
      check_link(here + ".link", tiers[i].link);
      const std::int64_t size = tiers[i].nodes_per_domain;
      const std::int64_t before = i == 0 ? 1 : tiers[i - 1].nodes_per_domain;
      if (size < 0 || !(size == 0 || (before > 0 && size % before == 0 && size >= before))) {
        add(here + ".nodes_per_domain", "domains must nest", "0 (all nodes) or a multiple of " + std::to_string(before),
            std::to_string(size));
      }
    }
  }

  void check_nodes() {
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
      const NodeGroup& group = graph_.nodes[i];
      const std::string path = "nodes[" + std::to_string(i) + "]";
      if (group.node_class < 0 || group.node_class >= static_cast<int>(graph_.node_classes.size())) {
        add(path + ".node_class", "no such node class", "an index below " + std::to_string(graph_.node_classes.size()),
            std::to_string(group.node_class));
      }
      if (group.count < 1) add(path + ".count", "count must be positive", "at least 1", std::to_string(group.count));
      if (group.continues && (i == 0 || !group.tiers.empty()))
        add(path + ".continues", "a group that continues another has no tiers of its own and is not the first", "false",
            "true");
    }
    if (problems_.empty() && num_devices(graph_) < 1) {
      add("nodes", "the cluster has no device", "at least one node with a device", "none",
          "list the nodes and their devices");
    }
  }

  /// `sound`: nothing else is wrong, so that the nodes can be counted.
  void check_network(bool sound) {
    check_tiers("tiers", graph_.tiers);
    for (std::size_t i = 0; i < graph_.nodes.size(); ++i)
      check_tiers("nodes[" + std::to_string(i) + "].tiers", graph_.nodes[i].tiers);
    for (std::size_t i = 0; i < graph_.link_overrides.size(); ++i)
      check_link("link_overrides[" + std::to_string(i) + "].link", graph_.link_overrides[i].link);
    if (sound) check_joined(num_nodes(graph_));
  }

  void check_joined(std::int64_t nodes) {
    const bool one_group = std::all_of(graph_.nodes.begin() + 1, graph_.nodes.end(),
                                       [](const NodeGroup& group) { return group.continues; });
    const bool one_group_joined =
        one_group && !graph_.nodes.front().tiers.empty() && graph_.nodes.front().tiers.back().nodes_per_domain == 0;
    const bool all_joined = nodes <= 1 || one_group_joined ||
                            (!graph_.tiers.empty() && (graph_.tiers.back().nodes_per_domain == 0 ||
                                                       graph_.tiers.back().nodes_per_domain >= nodes));
    if (!all_joined) {
      add("tiers", "nodes are not joined",
          "a last tier with nodes_per_domain 0, which joins all " + std::to_string(nodes) + " nodes",
          graph_.tiers.empty() ? "no tier" : std::to_string(graph_.tiers.back().nodes_per_domain));
    }
    for (std::size_t i = 0; i < graph_.link_overrides.size(); ++i) {
      const LinkOverride& entry = graph_.link_overrides[i];
      const std::string path = "link_overrides[" + std::to_string(i) + "]";
      for (const std::int64_t node : {entry.node_a, entry.node_b}) {
        if (node < 0 || node >= nodes)
          add(path, "no such node", "a node below " + std::to_string(nodes), std::to_string(node));
      }
      if (entry.node_a == entry.node_b)
        add(path, "an override joins a node to itself", "two nodes", std::to_string(entry.node_a));
    }
  }

  const ResourceGraph& graph_;
  std::vector<Error> problems_;
};

}  // namespace

std::string_view to_text(Source source) {
  switch (source) {
    case Source::Measured: return "measured";
    case Source::Datasheet: return "datasheet";
    case Source::Assumed: return "assumed";
  }
  return "assumed";
}

std::optional<Source> parse_source(std::string_view text) {
  for (const Source source : {Source::Measured, Source::Datasheet, Source::Assumed}) {
    if (text == to_text(source)) return source;
  }
  return std::nullopt;
}

std::string_view to_text(DeviceKind kind) { return kind == DeviceKind::Cpu ? "cpu" : "cuda"; }

std::int64_t num_nodes(const ResourceGraph& graph) {
  std::int64_t nodes = 0;
  for (const NodeGroup& group : graph.nodes) nodes += group.count;
  return nodes;
}

std::int64_t num_devices(const ResourceGraph& graph) {
  std::int64_t devices = 0;
  for (const NodeGroup& group : graph.nodes) {
    for (const DeviceCount& entry : class_of_group(graph, group).devices) devices += entry.count * group.count;
  }
  return devices;
}

std::int64_t num_devices(const ResourceGraph& graph, int device_class) {
  std::int64_t devices = 0;
  for (const NodeGroup& group : graph.nodes)
    devices += count_of(class_of_group(graph, group), device_class) * group.count;
  return devices;
}

DeviceLocation locate(const ResourceGraph& graph, DeviceId device) {
  std::int64_t first_node = 0;
  std::int64_t index = device.index;
  for (const NodeGroup& group : graph.nodes) {
    const NodeClass& node_class = class_of_group(graph, group);
    const std::int64_t per_node = count_of(node_class, device.device_class);
    if (index < per_node * group.count) {
      return {first_node + index / per_node, offset_of(node_class, device.device_class) + index % per_node};
    }
    index -= per_node * group.count;
    first_node += group.count;
  }
  COX_ENSURE(false, "no such device", device.device_class, device.index);
  return {};
}

const NodeClass& class_of_node(const ResourceGraph& graph, std::int64_t node) {
  for (const NodeGroup& group : graph.nodes) {
    if (node < group.count) return class_of_group(graph, group);
    node -= group.count;
  }
  COX_ENSURE(false, "no such node");
  return graph.node_classes.front();
}

DeviceId device_at(const ResourceGraph& graph, std::int64_t node, std::int64_t local_index) {
  const NodeClass& node_class = class_of_node(graph, node);
  DeviceId device{-1, 0};
  for (const DeviceCount& entry : node_class.devices) {
    if (local_index < entry.count) {
      device = {entry.device_class, local_index};
      break;
    }
    local_index -= entry.count;
  }
  COX_ENSURE(device.device_class >= 0, "no such device on the node", node, local_index);
  std::int64_t first_node = 0;
  for (const NodeGroup& group : graph.nodes) {
    const std::int64_t before = std::min(group.count, node - first_node);
    device.index += before * count_of(class_of_group(graph, group), device.device_class);
    first_node += group.count;
    if (node < first_node) break;
  }
  return device;
}

const LinkClass& link_between_nodes(const ResourceGraph& graph, std::int64_t a, std::int64_t b) {
  if (a == b) return class_of_node(graph, a).link;
  for (const LinkOverride& entry : graph.link_overrides) {
    if ((entry.node_a == a && entry.node_b == b) || (entry.node_a == b && entry.node_b == a)) return entry.link;
  }
  if (const LinkClass* link = tier_in_group(graph, a, b)) return *link;
  if (const LinkClass* link = first_tier(graph.tiers, a, b)) return *link;
  COX_ENSURE(false, "no tier joins the nodes", a, b);
  return graph.tiers.back().link;
}

const LinkClass& link_between(const ResourceGraph& graph, DeviceId a, DeviceId b) {
  return link_between_nodes(graph, locate(graph, a).node, locate(graph, b).node);
}

std::vector<Error> validate(const ResourceGraph& graph) { return Checker(graph).run(); }

std::string cluster_hash(const ResourceGraph& graph) {
  JsonArray classes;
  for (const DeviceClass& device : graph.device_classes) {
    classes.push_back(JsonObject{{"kind", to_text(device.kind)}, {"name", device.name}});
  }
  JsonArray groups;
  for (const NodeGroup& group : graph.nodes) {
    JsonArray devices;
    for (const DeviceCount& entry : class_of_group(graph, group).devices) {
      devices.push_back(JsonObject{{"class", entry.device_class}, {"count", entry.count}});
    }
    groups.push_back(JsonObject{{"count", group.count}, {"devices", std::move(devices)}});
  }
  return sha256_hex(to_text(JsonObject{{"device_classes", std::move(classes)}, {"nodes", std::move(groups)}}));
}

}  // namespace coxswain::cluster
