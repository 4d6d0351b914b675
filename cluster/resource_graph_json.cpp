// The JSON form of a ResourceGraph (docs/cluster.md): people's form, so classes are referred to by name and every
// number stands with its source.
#include <algorithm>
#include <limits>

#include "cluster/resource_graph.h"

namespace coxswain::cluster {
namespace {

constexpr std::int64_t kFormatVersion = 1;
constexpr std::int64_t kMaxCount = std::int64_t{1} << 40;

Json sourced_json(Json value, Source source) {
  return JsonObject{{"source", to_text(source)}, {"value", std::move(value)}};
}

Json link_json(const LinkClass& link) {
  JsonObject object{{"bandwidth_bytes_per_second", sourced_json(link.bandwidth.value.value, link.bandwidth.source)},
                    {"latency_seconds", sourced_json(link.latency.value.value, link.latency.source)},
                    {"name", link.name},
                    {"sharing", link.sharing}};
  if (link.price.value.value > 0)
    object["price_usd_per_byte"] = sourced_json(link.price.value.value, link.price.source);
  return object;
}

Json device_class_json(const DeviceClass& device) {
  JsonArray rates;
  for (const MatmulRate& rate : device.matmul_rates) {
    rates.push_back(JsonObject{{"dtype", to_text(rate.dtype)},
                               {"flop_per_second", sourced_json(rate.rate.value.value, rate.rate.source)},
                               {"size", rate.size}});
  }
  JsonObject object{
      {"cores", device.cores},
      {"kind", to_text(device.kind)},
      {"launch_overhead_seconds", sourced_json(device.launch_overhead.value.value, device.launch_overhead.source)},
      {"matmul_rates", std::move(rates)},
      {"memory_bandwidth_bytes_per_second",
       sourced_json(device.memory_bandwidth.value.value, device.memory_bandwidth.source)},
      {"memory_bytes", sourced_json(device.memory.value.value, device.memory.source)},
      {"name", device.name},
      {"peak_bfloat16_flop_per_second", sourced_json(device.peak_bfloat16.value.value, device.peak_bfloat16.source)},
      {"peak_float32_flop_per_second", sourced_json(device.peak_float32.value.value, device.peak_float32.source)}};
  if (device.price.value.value > 0)
    object["price_usd_per_hour"] = sourced_json(device.price.value.value, device.price.source);
  return object;
}

JsonArray tiers_json(const std::vector<NetworkTier>& tiers) {
  JsonArray array;
  for (const NetworkTier& tier : tiers)
    array.push_back(JsonObject{{"link", link_json(tier.link)}, {"nodes_per_domain", tier.nodes_per_domain}});
  return array;
}

/// Reads `key` of `reader` as {"value", "source"} and gives the value to `read(inner reader)`.
template <class Read>
Source read_sourced(JsonReader& reader, const std::string& key, Read read) {
  JsonReader inner(reader.object(key), key);
  if (!reader.has(key)) return Source::Assumed;  // reported by object()
  read(inner);
  const std::string text = inner.string("source");
  const std::optional<Source> source = parse_source(text);
  if (!source && inner.has("source")) {
    inner.problem(
        Error{ErrorCode::InvalidArgument, "unknown source", "source", "measured, datasheet, assumed", text, ""});
  }
  for (Error& problem : inner.take_problems()) reader.problem(std::move(problem));
  return source.value_or(Source::Assumed);
}

template <class Unit>
Sourced<Unit> read_number(JsonReader& reader, const std::string& key) {
  Sourced<Unit> result;
  result.source = read_sourced(reader, key, [&](JsonReader& inner) { result.value = Unit(inner.number("value")); });
  return result;
}

Sourced<Bytes> read_bytes(JsonReader& reader, const std::string& key) {
  Sourced<Bytes> result;
  result.source = read_sourced(reader, key, [&](JsonReader& inner) {
    result.value = Bytes(inner.integer("value", 0, std::numeric_limits<std::int64_t>::max() / 4));
  });
  return result;
}

LinkClass read_link(JsonReader& outer, const std::string& key) {
  LinkClass link;
  JsonReader reader(outer.object(key), key);
  if (!outer.has(key)) return link;
  link.name = reader.string("name");
  link.latency = read_number<Seconds>(reader, "latency_seconds");
  link.bandwidth = read_number<BytesPerSecond>(reader, "bandwidth_bytes_per_second");
  link.sharing = static_cast<int>(reader.integer("sharing", 0, 1 << 30));
  if (reader.has("price_usd_per_byte"))
    link.price = read_number<UsdPerByte>(reader, "price_usd_per_byte");
  else
    reader.any("price_usd_per_byte");
  for (Error& problem : reader.take_problems()) outer.problem(std::move(problem));
  return link;
}

DeviceClass read_device_class(JsonReader& reader) {
  DeviceClass device;
  device.name = reader.string("name");
  const std::string kind = reader.string("kind");
  if (kind == "cuda")
    device.kind = DeviceKind::Cuda;
  else if (kind != "cpu" && reader.has("kind"))
    reader.problem(Error{ErrorCode::InvalidArgument, "unknown device kind", "kind", "cpu, cuda", kind, ""});
  device.cores = reader.number("cores");
  device.memory = read_bytes(reader, "memory_bytes");
  device.memory_bandwidth = read_number<BytesPerSecond>(reader, "memory_bandwidth_bytes_per_second");
  device.peak_float32 = read_number<FlopPerSecond>(reader, "peak_float32_flop_per_second");
  device.peak_bfloat16 = read_number<FlopPerSecond>(reader, "peak_bfloat16_flop_per_second");
  device.launch_overhead = read_number<Seconds>(reader, "launch_overhead_seconds");
  if (reader.has("price_usd_per_hour"))
    device.price = read_number<UsdPerHour>(reader, "price_usd_per_hour");
  else
    reader.any("price_usd_per_hour");
  const JsonArray& rates = reader.array("matmul_rates");
  for (std::size_t i = 0; i < rates.size(); ++i) {
    JsonReader inner(rates[i], "matmul_rates[" + std::to_string(i) + "]");
    MatmulRate rate;
    const std::string dtype = inner.string("dtype");
    if (const auto parsed = parse_dtype(dtype))
      rate.dtype = *parsed;
    else if (inner.has("dtype"))
      inner.problem(Error{ErrorCode::InvalidArgument, "unknown dtype", "dtype", "float32, bfloat16, ...", dtype, ""});
    rate.size = inner.integer("size", 1, kMaxCount);
    rate.rate = read_number<FlopPerSecond>(inner, "flop_per_second");
    for (Error& problem : inner.take_problems()) reader.problem(std::move(problem));
    device.matmul_rates.push_back(rate);
  }
  return device;
}

/// Index of the entry named `reader.string(key)` in `all`; 0 with a problem when there is none.
template <class Entries>
int read_reference(JsonReader& reader, const std::string& key, const Entries& all) {
  const std::string name = reader.string(key);
  std::string names;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].name == name) return static_cast<int>(i);
    names += (names.empty() ? "" : ", ") + all[i].name;
  }
  if (reader.has(key)) reader.problem(Error{ErrorCode::InvalidArgument, "no class of that name", key, names, name, ""});
  return 0;
}

NodeClass read_node_class(JsonReader& reader, const ResourceGraph& graph) {
  NodeClass node;
  node.name = reader.string("name");
  node.cores = static_cast<int>(reader.integer("cores", 0, 1 << 30));
  node.host_memory = read_bytes(reader, "host_memory_bytes");
  node.link = read_link(reader, "link");
  if (reader.has("host_link"))
    node.host_link = read_link(reader, "host_link");
  else
    reader.any("host_link");
  if (reader.has("host_memory_bandwidth_bytes_per_second"))
    node.host_memory_bandwidth = read_number<BytesPerSecond>(reader, "host_memory_bandwidth_bytes_per_second");
  else
    reader.any("host_memory_bandwidth_bytes_per_second");
  const JsonArray& devices = reader.array("devices");
  for (std::size_t i = 0; i < devices.size(); ++i) {
    JsonReader inner(devices[i], "devices[" + std::to_string(i) + "]");
    DeviceCount entry;
    entry.device_class = read_reference(inner, "device_class", graph.device_classes);
    entry.count = inner.integer("count", 1, kMaxCount);
    for (Error& problem : inner.take_problems()) {
      if (problem.path.ends_with("count")) entry.count = 0;  // unknown: it must not look like a single device
      reader.problem(std::move(problem));
    }
    node.devices.push_back(entry);
  }
  return node;
}

/// Runs `read(reader of element)` for each element of the array `key`.
template <class Read>
void read_each(JsonReader& outer, const std::string& key, Read read) {
  const JsonArray& elements = outer.array(key);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    JsonReader inner(elements[i], key + "[" + std::to_string(i) + "]");
    read(inner);
    for (Error& problem : inner.take_problems()) outer.problem(std::move(problem));
  }
}

std::vector<NetworkTier> read_tiers(JsonReader& outer) {
  std::vector<NetworkTier> tiers;
  read_each(outer, "tiers", [&](JsonReader& inner) {
    NetworkTier tier;
    tier.link = read_link(inner, "link");
    tier.nodes_per_domain = inner.integer("nodes_per_domain", 0, kMaxCount);
    tiers.push_back(tier);
  });
  return tiers;
}

}  // namespace

Json to_json(const ResourceGraph& graph) {
  JsonArray device_classes, node_classes, nodes, overrides;
  for (const DeviceClass& device : graph.device_classes) device_classes.push_back(device_class_json(device));
  for (const NodeClass& node : graph.node_classes) {
    JsonArray devices;
    for (const DeviceCount& entry : node.devices) {
      devices.push_back(
          JsonObject{{"count", entry.count},
                     {"device_class", graph.device_classes[static_cast<std::size_t>(entry.device_class)].name}});
    }
    JsonObject entry{{"cores", node.cores},
                     {"devices", std::move(devices)},
                     {"host_memory_bytes", sourced_json(node.host_memory.value.value, node.host_memory.source)},
                     {"link", link_json(node.link)},
                     {"name", node.name}};
    if (!node.host_link.name.empty()) entry["host_link"] = link_json(node.host_link);
    if (node.host_memory_bandwidth.value.value > 0) {
      entry["host_memory_bandwidth_bytes_per_second"] =
          sourced_json(node.host_memory_bandwidth.value.value, node.host_memory_bandwidth.source);
    }
    node_classes.push_back(std::move(entry));
  }
  for (const NodeGroup& group : graph.nodes) {
    JsonObject entry{{"count", group.count},
                     {"node_class", graph.node_classes[static_cast<std::size_t>(group.node_class)].name}};
    if (!group.tiers.empty()) entry["tiers"] = tiers_json(group.tiers);
    if (group.continues) entry["continues"] = true;
    nodes.push_back(std::move(entry));
  }
  for (const LinkOverride& entry : graph.link_overrides) {
    overrides.push_back(
        JsonObject{{"link", link_json(entry.link)}, {"node_a", entry.node_a}, {"node_b", entry.node_b}});
  }
  JsonObject object{{"device_classes", std::move(device_classes)},
                    {"format_version", kFormatVersion},
                    {"node_classes", std::move(node_classes)},
                    {"nodes", std::move(nodes)},
                    {"tiers", tiers_json(graph.tiers)}};
  if (!overrides.empty()) object["link_overrides"] = std::move(overrides);
  return object;
}

Result<ResourceGraph> resource_graph_from_json(const Json& json) {
  ResourceGraph graph;
  JsonReader reader(json, "");
  reader.integer("format_version", kFormatVersion, kFormatVersion);
  read_each(reader, "device_classes",
            [&](JsonReader& inner) { graph.device_classes.push_back(read_device_class(inner)); });
  read_each(reader, "node_classes",
            [&](JsonReader& inner) { graph.node_classes.push_back(read_node_class(inner, graph)); });
  read_each(reader, "nodes", [&](JsonReader& inner) {
    NodeGroup group;
    group.node_class = read_reference(inner, "node_class", graph.node_classes);
    group.count = inner.integer("count", 1, kMaxCount);
    if (inner.has("tiers"))
      group.tiers = read_tiers(inner);
    else
      inner.any("tiers");
    if (inner.has("continues"))
      group.continues = inner.boolean("continues");
    else
      inner.any("continues");
    graph.nodes.push_back(group);
  });
  graph.tiers = read_tiers(reader);
  if (reader.has("link_overrides")) {
    read_each(reader, "link_overrides", [&](JsonReader& inner) {
      LinkOverride entry;
      entry.node_a = inner.integer("node_a", 0, kMaxCount);
      entry.node_b = inner.integer("node_b", 0, kMaxCount);
      entry.link = read_link(inner, "link");
      graph.link_overrides.push_back(entry);
    });
  } else {
    reader.any("link_overrides");
  }
  std::vector<Error> problems = reader.take_problems();
  // All at once; what could not be read has no value that one could judge.
  const std::size_t unread = problems.size();
  for (Error& problem : validate(graph)) {
    const auto covers = [](const std::string& a, const std::string& b) { return b.compare(0, a.size(), a) == 0; };
    const bool known = std::any_of(
        problems.begin(), problems.begin() + static_cast<std::ptrdiff_t>(unread),
        [&](const Error& read) { return covers(problem.path, read.path) || covers(read.path, problem.path); });
    if (!known) problems.push_back(std::move(problem));
  }
  if (!problems.empty())
    return combine_errors(ErrorCode::InvalidArgument, "the cluster file has problems", std::move(problems));
  return graph;
}

}  // namespace coxswain::cluster
