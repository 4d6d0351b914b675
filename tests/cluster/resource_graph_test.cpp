// ResourceGraph: numbering of devices, links by tier, rules, JSON and hash. Expected numbers are counted by hand.
#include "cluster/resource_graph.h"

#include <fstream>
#include <sstream>

#include "common/env.h"

#include <limits>

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cluster;

namespace {

LinkClass make_link(const std::string& name, double bandwidth) {
  return {name, {Seconds(1e-6), Source::Measured}, {BytesPerSecond(bandwidth), Source::Measured}, 0};
}

DeviceClass make_device(const std::string& name) {
  DeviceClass device;
  device.name = name;
  device.cores = 1;
  device.memory = {Bytes(1000), Source::Measured};
  device.memory_bandwidth = {BytesPerSecond(100), Source::Measured};
  device.peak_float32 = {FlopPerSecond(10), Source::Datasheet};
  device.launch_overhead = {Seconds(0.5), Source::Assumed};
  device.matmul_rates = {{DType::Float32, 64, {FlopPerSecond(5), Source::Measured}},
                         {DType::Float32, 128, {FlopPerSecond(8), Source::Measured}}};
  return device;
}

/// Nodes 0, 1: two `a` and one `b`; nodes 2, 3, 4: three `b`. Racks of two nodes, then everything.
ResourceGraph make_graph() {
  ResourceGraph graph;
  graph.device_classes = {make_device("a"), make_device("b")};
  graph.node_classes = {{"mixed", {{0, 2}, {1, 1}}, make_link("inner-mixed", 50), {Bytes(5), Source::Assumed}, 4},
                        {"plain", {{1, 3}}, make_link("inner-plain", 40), {Bytes(5), Source::Assumed}, 4}};
  graph.nodes = {{0, 2}, {1, 3}};
  graph.tiers = {{make_link("rack", 20), 2}, {make_link("pod", 10), 0}};
  return graph;
}

}  // namespace

TEST_CASE("devices are numbered class by class, node by node", "[resource_graph_test]") {
  const ResourceGraph graph = make_graph();
  REQUIRE(validate(graph).empty());
  CHECK(num_nodes(graph) == 5);
  CHECK(num_devices(graph) == 2 * 3 + 3 * 3);
  CHECK(num_devices(graph, 0) == 4);
  CHECK(num_devices(graph, 1) == 11);
  // Class b: one on node 0, one on node 1, then three a node.
  CHECK(locate(graph, {0, 3}).node == 1);
  CHECK(locate(graph, {0, 3}).local_index == 1);
  CHECK(locate(graph, {1, 1}).node == 1);
  CHECK(locate(graph, {1, 1}).local_index == 2);
  CHECK(locate(graph, {1, 2}).node == 2);
  CHECK(locate(graph, {1, 10}).node == 4);
  CHECK(locate(graph, {1, 10}).local_index == 2);
}

TEST_CASE("device_at undoes locate for every device", "[resource_graph_test]") {
  const ResourceGraph graph = make_graph();
  for (int device_class = 0; device_class < 2; ++device_class) {
    for (std::int64_t i = 0; i < num_devices(graph, device_class); ++i) {
      const DeviceLocation place = locate(graph, {device_class, i});
      CHECK(device_at(graph, place.node, place.local_index) == DeviceId{device_class, i});
    }
  }
}

TEST_CASE("two devices talk over the nearest link that holds both", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  CHECK(link_between(graph, {0, 0}, {0, 1}).name == "inner-mixed");
  CHECK(link_between(graph, {1, 2}, {1, 3}).name == "inner-plain");
  CHECK(link_between(graph, {0, 0}, {0, 2}).name == "rack");  // nodes 0 and 1
  CHECK(link_between(graph, {0, 2}, {1, 2}).name == "pod");   // nodes 1 and 2
  CHECK(link_between(graph, {1, 2}, {1, 5}).name == "rack");  // nodes 2 and 3
  graph.link_overrides = {{4, 0, make_link("slow", 1)}};
  CHECK(link_between_nodes(graph, 0, 4).name == "slow");
  CHECK(link_between_nodes(graph, 4, 0).name == "slow");
  CHECK(link_between_nodes(graph, 1, 4).name == "pod");
}

TEST_CASE("a hundred thousand devices stay a few classes", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  graph.nodes = {{1, 33334}};
  CHECK(num_devices(graph) == 100002);
  CHECK(locate(graph, {1, 100001}).node == 33333);
  CHECK(to_text(to_json(graph)).size() < 4096);
}

TEST_CASE("JSON gives back the same graph and the same bytes", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  graph.link_overrides = {{0, 3, make_link("slow", 1)}};
  const Json json = to_json(graph);
  CHECK(json["device_classes"].array()[0]["memory_bytes"]["source"].string() == "measured");
  const auto back = resource_graph_from_json(json);
  REQUIRE(back.has_value());
  CHECK(*back == graph);
  CHECK(to_text(to_json(*back)) == to_text(json));
}

TEST_CASE("a bad document lists every problem with its path", "[resource_graph_test]") {
  Json json = to_json(make_graph());
  json["device_classes"].array()[0]["memory_bytes"]["source"] = "guessed";
  json["device_classes"].array()[1]["kind"] = "tpu";
  json["nodes"].array()[0]["node_class"] = "nobody";
  json["colour"] = "red";
  const auto result = resource_graph_from_json(json);
  REQUIRE(!result.has_value());
  CHECK(result.error().code == ErrorCode::InvalidArgument);
  REQUIRE(result.error().details.size() == 4);
  CHECK(result.error().details[0].path == "device_classes[0].memory_bytes.source");
  CHECK(result.error().details[1].path == "device_classes[1].kind");
  CHECK(result.error().details[2].path == "nodes[0].node_class");
  CHECK(result.error().details[2].expected == "mixed, plain");
  CHECK(result.error().details[3].path == "colour");
}

TEST_CASE("validate names broken rules", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  graph.device_classes[0].memory_bandwidth.value = BytesPerSecond(0);
  graph.device_classes[1].name = "a";
  graph.device_classes[1].matmul_rates[1].size = 64;
  auto problems = validate(graph);
  REQUIRE(problems.size() == 3);
  CHECK(problems[0].path == "device_classes[0].memory_bandwidth_bytes_per_second");
  CHECK(problems[1].path == "device_classes[1].name");
  CHECK(problems[2].path == "device_classes[1].matmul_rates[1].size");

  graph = make_graph();
  graph.tiers.pop_back();
  problems = validate(graph);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].message == "nodes are not joined");

  graph = make_graph();
  graph.tiers[0].nodes_per_domain = 4;
  graph.tiers[1].nodes_per_domain = 6;
  problems = validate(graph);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "tiers[1].nodes_per_domain");

  graph = make_graph();
  graph.nodes.clear();
  problems = validate(graph);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].message == "the cluster has no device");
}

TEST_CASE("a zero link, a negative latency and no memory are told beside a wrong count", "[resource_graph_test]") {
  Json json = to_json(make_graph());
  json["node_classes"].array()[0]["devices"].array()[0]["count"] = 0;
  json["node_classes"].array()[0]["link"]["bandwidth_bytes_per_second"]["value"] = 0.0;
  json["device_classes"].array()[0]["memory_bytes"]["value"] = 0;
  json["tiers"].array()[0]["link"]["latency_seconds"]["value"] = -1.0;
  json["device_classes"].array()[1]["peak_float32_flop_per_second"]["value"] = "fast";
  const auto result = resource_graph_from_json(json);
  REQUIRE(!result.has_value());
  std::vector<std::string> paths;
  for (const Error& problem : result.error().details) paths.push_back(problem.path);
  CHECK(paths == std::vector<std::string>{"device_classes[1].peak_float32_flop_per_second.value",
                                          "node_classes[0].devices[0].count", "device_classes[0].memory_bytes",
                                          "node_classes[0].link.bandwidth_bytes_per_second",
                                          "tiers[0].link.latency_seconds"});
}

TEST_CASE("what is no number is a problem of the cluster, not a bug", "[resource_graph_test]") {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  ResourceGraph graph = make_graph();
  graph.device_classes[0].memory_bandwidth.value = BytesPerSecond(kNan);
  graph.device_classes[0].launch_overhead.value = Seconds(kNan);
  graph.device_classes[1].peak_float32.value = FlopPerSecond(kInfinity);
  graph.node_classes[0].link.latency.value = Seconds(kInfinity);
  graph.tiers[0].link.bandwidth.value = BytesPerSecond(kNan);
  const auto problems = validate(graph);
  REQUIRE(problems.size() == 5);
  CHECK(problems[0].path == "device_classes[0].memory_bandwidth_bytes_per_second");
  CHECK(problems[0].got == "nan");
  CHECK(problems[1].path == "device_classes[0].launch_overhead_seconds");
  CHECK(problems[2].path == "device_classes[1].peak_float32_flop_per_second");
  CHECK(problems[2].got == "inf");
  CHECK(problems[3].path == "node_classes[0].link.latency_seconds");
  CHECK(problems[4].path == "tiers[0].link.bandwidth_bytes_per_second");
}

TEST_CASE("the hash sees classes and counts, not rates", "[resource_graph_test]") {
  const ResourceGraph graph = make_graph();
  ResourceGraph other = graph;
  other.device_classes[0].memory_bandwidth.value = BytesPerSecond(77);
  other.device_classes[0].memory.value = Bytes(5);
  other.tiers[0].link.latency.value = Seconds(9);
  CHECK(cluster_hash(other) == cluster_hash(graph));
  other.nodes[1].count = 4;
  CHECK(cluster_hash(other) != cluster_hash(graph));
  other = graph;
  other.device_classes[0].name = "c";
  CHECK(cluster_hash(other) != cluster_hash(graph));
}

TEST_CASE("the shipped cluster file loads", "[resource_graph_test]") {
  const auto source = env("COX_SOURCE_DIR");
  REQUIRE(source.has_value());
  std::ifstream file(*source + "/examples/clusters/a100_64x8.json");
  std::stringstream text;
  text << file.rdbuf();
  const auto json = parse_json(text.str());
  REQUIRE(json.has_value());
  const auto graph = resource_graph_from_json(*json);
  REQUIRE(graph.has_value());
  CHECK(num_devices(*graph) == 512);
  CHECK(link_between(*graph, {0, 7}, {0, 8}).name == "ib-hdr");
}

TEST_CASE("a group's own tiers come before the graph's", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  // Nodes 2, 3, 4 are the second group: pairs counted from node 2, then all of the group.
  graph.nodes[1].tiers = {{make_link("pair", 35), 2}, {make_link("group", 30), 0}};
  REQUIRE(validate(graph).empty());
  CHECK(link_between_nodes(graph, 2, 3).name == "pair");
  CHECK(link_between_nodes(graph, 3, 4).name == "group");
  CHECK(link_between_nodes(graph, 0, 1).name == "rack");
  CHECK(link_between_nodes(graph, 1, 2).name == "pod");
  CHECK(link_between_nodes(graph, 2, 2).name == "inner-plain");
  const auto back = resource_graph_from_json(to_json(graph));
  REQUIRE(back.has_value());
  CHECK(*back == graph);
  graph.nodes[1].tiers[1].nodes_per_domain = 3;
  const auto problems = validate(graph);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "nodes[1].tiers[1].nodes_per_domain");
}

TEST_CASE("a link's price for a byte stands in the file only when there is one", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  CHECK(to_text(to_json(graph)).find("price_usd_per_byte") == std::string::npos);
  graph.tiers[0].link.price = {UsdPerByte(2e-11), Source::Datasheet};
  const auto read = resource_graph_from_json(to_json(graph));
  REQUIRE(read.has_value());
  CHECK(*read == graph);
  graph.tiers[0].link.price.value = UsdPerByte(-1);
  const auto problems = validate(graph);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "tiers[0].link.price_usd_per_byte");
}

TEST_CASE("a price stands in the file only when it is known", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  const std::string hash = cluster_hash(graph);
  CHECK(to_text(to_json(graph)).find("price") == std::string::npos);
  graph.device_classes[0].price = {UsdPerHour(1.25), Source::Datasheet};
  CHECK(cluster_hash(graph) == hash);
  const Json json = to_json(graph);
  CHECK(json["device_classes"].array()[0]["price_usd_per_hour"]["value"].number() == 1.25);
  const auto back = resource_graph_from_json(json);
  REQUIRE(back.has_value());
  CHECK(*back == graph);
  graph.device_classes[0].price.value = UsdPerHour(-1);
  CHECK(validate(graph).size() == 1);
}

TEST_CASE("a group that continues another shares its tiers, counted from its first node", "[resource_graph_test]") {
  ResourceGraph graph = make_graph();
  graph.nodes = {{0, 1, {{make_link("close", 30), 2}, {make_link("group", 25), 0}}}, {1, 3, {}, true}, {0, 1}};
  REQUIRE(validate(graph).empty());
  CHECK(link_between_nodes(graph, 0, 1).name == "close");
  CHECK(link_between_nodes(graph, 1, 2).name == "group");
  CHECK(link_between_nodes(graph, 2, 3).name == "close");
  CHECK(link_between_nodes(graph, 3, 4).name == "pod");
  // One network for all is enough.
  graph.nodes.pop_back();
  graph.tiers.clear();
  CHECK(validate(graph).empty());
  graph.nodes[1].continues = false;
  CHECK(validate(graph).size() == 1);
  graph.nodes[0].continues = true;
  REQUIRE(validate(graph).size() == 1);
  CHECK(validate(graph)[0].path == "nodes[0].continues");
}
