#include "launcher/control/measurement.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <map>

#include "common/ensure.h"
#include "proto/control.pb.h"

namespace coxswain::launcher {
namespace {

using cluster::LinkClass;
using cluster::Source;

// A link whose bandwidth or latency is this many times off the median of its tier is kept apart.
constexpr double kOverrideRatio = 1.3;

control::AgentHello parse_hello(const NodeView& node) {
  control::AgentHello hello;
  hello.ParseFromString(node.hello);
  return hello;
}

std::string class_stem(const control::Device& device) {
  if (device.kind() == "cpu") {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f", device.cores());
    std::string cores = text;
    if (cores.back() == '0') cores.pop_back();
    return "cpu-" + cores;
  }
  std::string stem = device.kind() + "-";
  for (char c : device.name())
    stem += std::isalnum(static_cast<unsigned char>(c)) != 0
                ? static_cast<char>(std::tolower(static_cast<unsigned char>(c)))
                : '-';
  return stem;
}

double median(std::vector<double> values) {
  COX_ENSURE(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

/// A rank with all that is known of it.
struct Measured {
  RankBinding binding;
  control::Device device;
  control::MeasureReport report;
};

struct LinkSamples {
  std::vector<double> latencies, bandwidths;
  void add(const control::MeasuredLink& link) {
    latencies.push_back(link.latency_seconds());
    bandwidths.push_back(link.bytes_per_second());
  }
  [[nodiscard]] LinkClass link(const std::string& name, int sharing) const {
    LinkClass made;
    made.name = name;
    made.sharing = sharing;
    if (latencies.empty()) {
      // One device: nothing crosses the link; the numbers only keep the graph valid.
      made.latency = {Seconds(1e-5), Source::Assumed};
      made.bandwidth = {BytesPerSecond(5e9), Source::Assumed};
    } else {
      made.latency = {Seconds(median(latencies)), Source::Measured};
      made.bandwidth = {BytesPerSecond(median(bandwidths)), Source::Measured};
    }
    return made;
  }
};

cluster::DeviceClass make_device_class(const std::string& name, const std::vector<const Measured*>& members) {
  cluster::DeviceClass made;
  made.name = name;
  const control::Device& device = members.front()->device;
  made.kind = device.kind() == "cpu" ? cluster::DeviceKind::Cpu : cluster::DeviceKind::Cuda;
  made.cores = device.kind() == "cpu" ? device.cores() : 0;
  std::int64_t memory = device.memory_bytes();
  std::vector<double> bandwidths, overheads;
  std::map<std::pair<std::string, std::int64_t>, std::vector<double>> rates;
  for (const Measured* member : members) {
    memory = std::min(memory, member->device.memory_bytes());
    bandwidths.push_back(member->report.memory_bytes_per_second());
    overheads.push_back(member->report.launch_overhead_seconds());
    for (const auto& rate : member->report.matmul())
      rates[{rate.dtype(), rate.size()}].push_back(rate.flop_per_second());
  }
  made.memory = {Bytes(memory), Source::Measured};
  made.memory_bandwidth = {BytesPerSecond(median(bandwidths)), Source::Measured};
  made.launch_overhead = {Seconds(median(overheads)), Source::Measured};
  for (const auto& [key, values] : rates) {
    const auto dtype = parse_dtype(key.first);
    if (!dtype) continue;
    const FlopPerSecond rate(median(values));
    made.matmul_rates.push_back({*dtype, key.second, {rate, Source::Measured}});
    auto& peak = *dtype == DType::BFloat16 ? made.peak_bfloat16 : made.peak_float32;
    if (*dtype != DType::BFloat16 && *dtype != DType::Float32) continue;
    if (rate > peak.value) peak = {rate, Source::Measured};
  }
  if (made.peak_bfloat16.value.value <= 0) made.peak_bfloat16 = {made.peak_float32.value, Source::Assumed};
  return made;
}

/// What makes two nodes equal: how many devices of each class, and the cores.
struct NodeKey {
  std::vector<std::int64_t> counts;
  int cores = 0;
  friend auto operator<=>(const NodeKey&, const NodeKey&) = default;
};

Result<cluster::Profile> merge_profiles(const std::vector<Measured>& ranks) {
  cluster::Profile merged;
  using Key = std::tuple<std::string, std::string, std::int64_t>;
  std::map<Key, std::vector<cluster::BlockTiming>> blocks;
  std::map<std::string, std::vector<cluster::Profile::DeviceRates>> devices;
  for (const Measured& rank : ranks) {
    if (rank.report.profile_json().empty()) continue;
    COX_TRY(const Json json, parse_json(rank.report.profile_json()));
    COX_TRY(const cluster::Profile profile, cluster::profile_from_json(json));
    merged.model_hash = profile.model_hash;
    merged.precision = profile.precision;
    for (const auto& block : profile.blocks)
      blocks[{block.signature, block.device_class, block.samples}].push_back(block);
    for (const auto& device : profile.devices) devices[device.device_class].push_back(device);
  }
  const auto middle = [](const auto& items, auto&& member) {
    std::vector<double> values;
    for (const auto& item : items) values.push_back(static_cast<double>(member(item).value));
    return median(std::move(values));
  };
  for (const auto& [key, items] : blocks) {
    cluster::BlockTiming timing = items.front();
    timing.forward = Seconds(middle(items, [](const auto& b) { return b.forward; }));
    timing.backward = Seconds(middle(items, [](const auto& b) { return b.backward; }));
    timing.saved = Bytes(std::llround(middle(items, [](const auto& b) { return b.saved; })));
    timing.transient = Bytes(std::llround(middle(items, [](const auto& b) { return b.transient; })));
    merged.blocks.push_back(std::move(timing));
  }
  for (const auto& [name, items] : devices) {
    cluster::Profile::DeviceRates rates = items.front();
    rates.optimizer_per_parameter = Seconds(middle(items, [](const auto& d) { return d.optimizer_per_parameter; }));
    rates.norm_per_parameter = Seconds(middle(items, [](const auto& d) { return d.norm_per_parameter; }));
    rates.step_overhead = Seconds(middle(items, [](const auto& d) { return d.step_overhead; }));
    rates.action_overhead = Seconds(middle(items, [](const auto& d) { return d.action_overhead; }));
    rates.base_memory = Bytes(std::llround(middle(items, [](const auto& d) { return d.base_memory; })));
    merged.devices.push_back(std::move(rates));
  }
  return merged;
}

bool differs(const LinkClass& a, const LinkClass& b) {
  const auto far = [](double x, double y) { return std::max(x, y) > kOverrideRatio * std::min(x, y); };
  return far(a.bandwidth.value.value, b.bandwidth.value.value) || far(a.latency.value.value, b.latency.value.value);
}

}  // namespace

std::vector<RankBinding> bind_all_devices(const std::vector<NodeView>& nodes) {
  std::vector<RankBinding> ranks;
  // (stem, model) in order of first appearance; the second model of a stem gets a letter.
  std::vector<std::pair<std::string, std::string>> known;
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const auto hello = parse_hello(nodes[n]);
    for (int d = 0; d < hello.devices_size(); ++d) {
      const std::pair<std::string, std::string> key{class_stem(hello.devices(d)), hello.devices(d).name()};
      if (std::find(known.begin(), known.end(), key) == known.end()) known.push_back(key);
      int letter = 0;
      for (const auto& other : known) {
        if (other == key) break;
        letter += other.first == key.first ? 1 : 0;
      }
      ranks.push_back(
          {static_cast<int>(n), d, letter == 0 ? key.first : key.first + "-" + static_cast<char>('a' + letter)});
    }
  }
  return ranks;
}

bool has_same_devices(std::string_view hello, std::string_view other) {
  control::AgentHello a, b;
  a.ParseFromArray(hello.data(), static_cast<int>(hello.size()));
  b.ParseFromArray(other.data(), static_cast<int>(other.size()));
  return a.devices_size() == b.devices_size() &&
         std::equal(a.devices().begin(), a.devices().end(), b.devices().begin(),
                    [](const control::Device& one, const control::Device& two) {
                      return one.kind() == two.kind() && one.ordinal() == two.ordinal() && one.cores() == two.cores() &&
                             one.name() == two.name();
                    });
}

namespace {

int first_rank_of(const Measurements& measurements, int node) {
  const auto& ranks = measurements.ranks;
  const auto found = std::find_if(ranks.begin(), ranks.end(), [&](const RankBinding& r) { return r.node == node; });
  COX_ENSURE(found != ranks.end(), "a node without devices", node);
  return static_cast<int>(found - ranks.begin());
}

/// The report of rank `of` as one of rank `of` + `shift`, whose node is like its own.
std::string report_of_like_rank(const Measurements& measurements, std::size_t of, int shift) {
  control::MeasureReport report;
  report.ParseFromString(measurements.reports[of]);
  control::MeasureReport made = report;
  made.clear_links();
  const int node = measurements.ranks[of].node;
  const auto is_inside = [&](int rank) { return measurements.ranks[static_cast<std::size_t>(rank)].node == node; };
  for (control::MeasuredLink link : report.links()) {
    if (!is_inside(link.from()) || !is_inside(link.to())) continue;
    link.set_from(link.from() + shift);
    link.set_to(link.to() + shift);
    *made.add_links() = link;
  }
  return made.SerializeAsString();
}

LinkSamples links_between_nodes(const Measurements& measurements) {
  LinkSamples between;
  for (const std::string& bytes : measurements.reports) {
    control::MeasureReport report;
    report.ParseFromString(bytes);
    for (const control::MeasuredLink& link : report.links()) {
      const auto node_of = [&](int rank) { return measurements.ranks[static_cast<std::size_t>(rank)].node; };
      if (node_of(link.from()) != node_of(link.to())) between.add(link);
    }
  }
  return between;
}

}  // namespace

bool add_like_node(Measurements& measurements, NodeView node, int like) {
  const auto number = static_cast<int>(measurements.nodes.size());
  const LinkSamples between = links_between_nodes(measurements);
  measurements.nodes.push_back(std::move(node));
  measurements.ranks = bind_all_devices(measurements.nodes);  // those that were there keep their places
  const int first_like = first_rank_of(measurements, like), first = first_rank_of(measurements, number);
  COX_ENSURE(static_cast<std::size_t>(first) == measurements.reports.size());
  for (std::size_t rank = static_cast<std::size_t>(first); rank < measurements.ranks.size(); ++rank) {
    const int shift = first - first_like;
    measurements.reports.push_back(report_of_like_rank(measurements, rank - static_cast<std::size_t>(shift), shift));
  }
  if (between.latencies.empty()) return false;
  const LinkClass link = between.link("", 0);
  add_link(measurements, number, 0, link.latency.value, link.bandwidth.value);
  return true;
}

void add_link(Measurements& measurements, int node, int other, Seconds latency, BytesPerSecond bandwidth) {
  const int from = first_rank_of(measurements, node);
  control::MeasureReport report;
  report.ParseFromString(measurements.reports[static_cast<std::size_t>(from)]);
  control::MeasuredLink& link = *report.add_links();
  link.set_from(from);
  link.set_to(first_rank_of(measurements, other));
  link.set_latency_seconds(latency.value);
  link.set_bytes_per_second(bandwidth.value);
  measurements.reports[static_cast<std::size_t>(from)] = report.SerializeAsString();
}

Result<std::string> resolve_backend(const std::string& asked, const std::vector<NodeView>& nodes) {
  if (asked == "mpi" && nodes.size() > 1) {
    return Error{
        ErrorCode::Unimplemented, "mpi over several nodes is not possible in this version", "--backend",
        "host, or one node",      "mpi with " + std::to_string(nodes.size()) + " nodes",    "use --backend host"};
  }
  if (asked != "auto" && !asked.empty()) return asked;
  for (const NodeView& node : nodes) {
    control::AgentHello hello;
    hello.ParseFromString(node.hello);
    for (const auto& device : hello.devices()) {
      if (device.kind() != "cuda") return std::string("host");
    }
  }
  return std::string("nccl");
}

Result<MeasuredCluster> build_cluster(const Measurements& measurements) {
  std::vector<control::AgentHello> hellos;
  for (const NodeView& node : measurements.nodes) hellos.push_back(parse_hello(node));
  std::vector<Measured> ranks;
  for (std::size_t r = 0; r < measurements.ranks.size(); ++r) {
    Measured rank;
    rank.binding = measurements.ranks[r];
    rank.device = hellos[static_cast<std::size_t>(rank.binding.node)].devices(rank.binding.local_device);
    if (!rank.report.ParseFromString(measurements.reports[r]))
      return Error{ErrorCode::Internal, "unreadable measurements of rank " + std::to_string(r), "", "", "", ""};
    ranks.push_back(std::move(rank));
  }

  MeasuredCluster made;
  cluster::ResourceGraph& graph = made.resources;
  std::vector<std::string> class_names;
  for (const Measured& rank : ranks) {
    if (std::find(class_names.begin(), class_names.end(), rank.binding.device_class) == class_names.end())
      class_names.push_back(rank.binding.device_class);
  }
  for (const std::string& name : class_names) {
    std::vector<const Measured*> members;
    for (const Measured& rank : ranks) {
      if (rank.binding.device_class == name) members.push_back(&rank);
    }
    graph.device_classes.push_back(make_device_class(name, members));
  }

  // Nodes of one key stand together: the graph numbers nodes group by group.
  std::vector<NodeKey> keys(hellos.size());
  for (std::size_t n = 0; n < hellos.size(); ++n) {
    keys[n].counts.assign(class_names.size(), 0);
    keys[n].cores = static_cast<int>(std::lround(hellos[n].cores()));
  }
  for (const Measured& rank : ranks) {
    const auto position =
        std::find(class_names.begin(), class_names.end(), rank.binding.device_class) - class_names.begin();
    ++keys[static_cast<std::size_t>(rank.binding.node)].counts[static_cast<std::size_t>(position)];
  }
  std::vector<NodeKey> distinct;
  for (const NodeKey& key : keys) {
    if (std::find(distinct.begin(), distinct.end(), key) == distinct.end()) distinct.push_back(key);
  }
  std::vector<LinkSamples> inside(distinct.size());
  LinkSamples between;
  std::map<std::pair<int, int>, LinkSamples> by_pair;
  for (const Measured& rank : ranks) {
    for (const auto& link : rank.report.links()) {
      const int a = ranks.at(static_cast<std::size_t>(link.from())).binding.node,
                b = ranks.at(static_cast<std::size_t>(link.to())).binding.node;
      if (a == b) {
        inside[static_cast<std::size_t>(std::find(distinct.begin(), distinct.end(), keys[static_cast<std::size_t>(a)]) -
                                        distinct.begin())]
            .add(link);
      } else {
        between.add(link);
        by_pair[std::minmax(a, b)].add(link);
      }
    }
  }
  for (std::size_t k = 0; k < distinct.size(); ++k) {
    cluster::NodeClass node_class;
    node_class.name = "node-" + std::string(1, static_cast<char>('a' + k % 26));
    for (std::size_t c = 0; c < class_names.size(); ++c) {
      if (distinct[k].counts[c] > 0) node_class.devices.push_back({static_cast<int>(c), distinct[k].counts[c]});
    }
    node_class.link = inside[k].link("shared-memory", 0);
    node_class.cores = distinct[k].cores;
    std::int64_t count = 0;
    for (std::size_t n = 0; n < keys.size(); ++n) {
      if (keys[n] != distinct[k]) continue;
      const Bytes memory(hellos[n].memory_bytes());
      if (count == 0 || memory < node_class.host_memory.value) node_class.host_memory = {memory, Source::Measured};
      made.run_node.push_back(static_cast<int>(n));
      ++count;
    }
    graph.node_classes.push_back(std::move(node_class));
    graph.nodes.push_back({static_cast<int>(k), count});
  }
  if (hellos.size() > 1) {
    graph.tiers.push_back({between.link("tcp", 1), 0});
    std::vector<std::int64_t> graph_node(hellos.size());
    for (std::size_t g = 0; g < made.run_node.size(); ++g)
      graph_node[static_cast<std::size_t>(made.run_node[g])] = static_cast<std::int64_t>(g);
    for (const auto& [pair, samples] : by_pair) {
      const LinkClass link = samples.link("tcp", 1);
      if (!differs(link, graph.tiers.front().link)) continue;
      const auto [low, high] = std::minmax(graph_node[static_cast<std::size_t>(pair.first)],
                                           graph_node[static_cast<std::size_t>(pair.second)]);
      graph.link_overrides.push_back({low, high, link});
    }
  }
  COX_TRY(made.profile, merge_profiles(ranks));
  return made;
}

RankBinding bind_device(const MeasuredCluster& cluster, const std::vector<RankBinding>& all_devices,
                        cluster::DeviceId device) {
  const cluster::DeviceLocation location = cluster::locate(cluster.resources, device);
  const int node = cluster.run_node.at(static_cast<std::size_t>(location.node));
  const std::string& name = cluster.resources.device_classes.at(static_cast<std::size_t>(device.device_class)).name;
  // The how-many-th of its class on this node: devices of a class are counted node by node.
  std::int64_t before = 0;
  for (std::int64_t index = device.index; index > 0; --index) {
    if (cluster::locate(cluster.resources, {device.device_class, index - 1}).node != location.node) break;
    ++before;
  }
  for (const RankBinding& candidate : all_devices) {
    if (candidate.node == node && candidate.device_class == name && before-- == 0) return candidate;
  }
  COX_ENSURE(false, "no such device", name, node);
  return {};
}

}  // namespace coxswain::launcher
