// Lost, slower and added devices: numbers counted by hand, and the law that devices keep class, neighbours and links.
#include "cluster/change.h"

#include <random>
#include <set>

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
  device.launch_overhead = {Seconds(0.5), Source::Measured};
  device.matmul_rates = {{DType::Float32, 64, {FlopPerSecond(5), Source::Measured}}};
  return device;
}

/// `nodes` nodes of `per_node` devices `a`.
ResourceGraph make_graph(std::int64_t nodes, std::int64_t per_node, std::vector<NetworkTier> tiers) {
  ResourceGraph graph;
  graph.device_classes = {make_device("a")};
  graph.node_classes = {{"box", {{0, per_node}}, make_link("inner", 50), {Bytes(5), Source::Assumed}, 4}};
  graph.nodes = {{0, nodes}};
  graph.tiers = std::move(tiers);
  return graph;
}

ChangedCluster apply(const ResourceGraph& graph, const ClusterChange& change) {
  auto changed = apply_change(graph, change);
  REQUIRE(changed.has_value());
  REQUIRE(validate(changed->graph).empty());
  return *changed;
}

}  // namespace

TEST_CASE("a lost device shifts what stands behind it, and its node becomes a class of its own", "[change_test]") {
  const ResourceGraph graph = make_graph(3, 2, {{make_link("net", 10), 0}});
  const ChangedCluster changed = apply(graph, {{{"a", 2, 2}}, {}, {}});
  // Like nodes stay together: nodes 0 and 2, then what is left of node 1.
  REQUIRE(changed.graph.nodes.size() == 2);
  CHECK(changed.graph.nodes[0] == NodeGroup{0, 2});
  CHECK(changed.graph.nodes[1].count == 1);
  CHECK(changed.graph.node_classes[1].name == "box with 1 x a");
  CHECK(changed.devices[0][0] == DeviceId{0, 0});
  CHECK_FALSE(changed.devices[0][2].has_value());
  CHECK(changed.devices[0][3] == DeviceId{0, 4});
  CHECK(changed.devices[0][4] == DeviceId{0, 2});
  CHECK(changed.devices[0][5] == DeviceId{0, 3});
}

TEST_CASE("a lost node leaves one group where its domain has a like one", "[change_test]") {
  // Racks of two. Node 2 is lost: its rack goes last, what is left of it first.
  const ResourceGraph graph = make_graph(8, 1, {{make_link("rack", 20), 2}, {make_link("pod", 10), 0}});
  const ChangedCluster changed = apply(graph, {{{"node", 2, 2}}, {}, {}});
  REQUIRE(changed.graph.nodes.size() == 1);
  CHECK(changed.graph.nodes[0].count == 7);
  CHECK(changed.devices[0][1] == DeviceId{0, 1});
  CHECK_FALSE(changed.devices[0][2].has_value());
  CHECK(changed.devices[0][3] == DeviceId{0, 6});
  CHECK(changed.devices[0][4] == DeviceId{0, 2});
}

TEST_CASE("a node whose number later nodes need stays without devices", "[change_test]") {
  ResourceGraph graph = make_graph(2, 1, {{make_link("rack", 20), 2}, {make_link("pod", 10), 0}});
  graph.device_classes.push_back(make_device("b"));
  graph.node_classes.push_back({"other", {{1, 1}}, make_link("inner", 50), {Bytes(5), Source::Assumed}, 4});
  graph.nodes.push_back({1, 2});
  const ChangedCluster changed = apply(graph, {{{"a", 0, 0}}, {}, {}});
  CHECK(num_nodes(changed.graph) == 4);
  CHECK(num_devices(changed.graph) == 3);
  // Node 0 is the lost one now, so that the two b keep their rack.
  CHECK(link_between(changed.graph, *changed.devices[1][0], *changed.devices[1][1]).name == "rack");
  CHECK(link_between(changed.graph, *changed.devices[0][1], *changed.devices[1][1]).name == "pod");
}

TEST_CASE("a slower device is a class of its own with scaled rates", "[change_test]") {
  const ResourceGraph graph = make_graph(1, 4, {});
  const ChangedCluster changed = apply(graph, {{}, {{"a", 1, 2, 0.5}}, {}});
  REQUIRE(changed.graph.device_classes.size() == 2);
  const DeviceClass& slow = changed.graph.device_classes[1];
  CHECK(slow.name == "a at 0.5");
  CHECK(slow.peak_float32.value.value == 5);
  CHECK(slow.memory_bandwidth.value.value == 50);
  CHECK(slow.matmul_rates[0].rate.value.value == 2.5);
  CHECK(slow.launch_overhead.value.value == 1.0);
  CHECK(slow.memory.value == Bytes(1000));
  CHECK(slow.peak_float32.source == Source::Assumed);
  CHECK(changed.devices[0][0] == DeviceId{0, 0});
  CHECK(changed.devices[0][1] == DeviceId{1, 0});
  CHECK(changed.devices[0][2] == DeviceId{1, 1});
  CHECK(changed.devices[0][3] == DeviceId{0, 1});
  CHECK(changed.slowed == std::vector<SlowedClass>{{1, 0, 0.5}});
}

TEST_CASE("a slowed class takes the measured times of its origin at its fraction", "[change_test]") {
  const ChangedCluster changed = apply(make_graph(1, 2, {}), {{}, {{"a", 1, 1, 0.25}}, {}});
  Profile profile;
  profile.blocks = {{"layer", "a", 2, Seconds(1), Seconds(2), Bytes(8), Bytes(9)}};
  profile.devices = {{"a", Seconds(1), Seconds(2), Seconds(3), Seconds(4), Bytes(7)}};
  add_slowed(profile, changed);
  REQUIRE(profile.blocks.size() == 2);
  CHECK(profile.blocks[1].device_class == "a at 0.25");
  CHECK(profile.blocks[1].forward.value == 4);
  CHECK(profile.blocks[1].backward.value == 8);
  CHECK(profile.blocks[1].saved == Bytes(8));
  REQUIRE(profile.devices.size() == 2);
  CHECK(profile.devices[1].step_overhead.value == 12);
  CHECK(profile.devices[1].base_memory == Bytes(7));
}

TEST_CASE("added nodes join the group of their class", "[change_test]") {
  const ResourceGraph graph = make_graph(2, 2, {{make_link("net", 10), 0}});
  const ChangedCluster changed = apply(graph, {{}, {}, {{"box", 3}}});
  CHECK(changed.graph.nodes == std::vector<NodeGroup>{{0, 5}});
  CHECK(changed.devices == identity_map(graph));
  // A lone node without a network has nothing to meet the new one over.
  const auto alone = apply_change(make_graph(1, 2, {}), {{}, {}, {{"box", 1}}});
  REQUIRE_FALSE(alone.has_value());
  CHECK(alone.error().path == "tiers");
}

TEST_CASE("a group that is split keeps its own network", "[change_test]") {
  ResourceGraph graph = make_graph(3, 2, {{make_link("slow", 10), 0}});
  graph.nodes[0].tiers = {{make_link("fast", 40), 0}};
  graph.nodes.push_back({0, 2, {{make_link("other", 30), 0}}});
  const ChangedCluster changed = apply(graph, {{{"a", 0, 0}}, {}, {}});
  REQUIRE(changed.graph.nodes.size() == 3);
  CHECK(changed.graph.nodes[1].continues);
  CHECK(link_between(changed.graph, *changed.devices[0][1], *changed.devices[0][4]).name == "fast");
  CHECK(link_between(changed.graph, *changed.devices[0][1], *changed.devices[0][7]).name == "slow");
  CHECK(link_between(changed.graph, *changed.devices[0][6], *changed.devices[0][8]).name == "other");
  // The file form holds it.
  const auto again = resource_graph_from_json(to_json(changed.graph));
  REQUIRE(again.has_value());
  CHECK(*again == changed.graph);
}

TEST_CASE("whatever is lost, slowed or added, survivors keep class, node and links", "[change_test]") {
  std::mt19937 random(5);
  const auto pick = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  for (int round = 0; round < 300; ++round) {
    ResourceGraph graph;
    graph.device_classes = {make_device("a"), make_device("b")};
    graph.node_classes = {{"one", {{0, pick(1, 3)}}, make_link("i1", 50), {Bytes(5), Source::Assumed}, 4},
                          {"two", {{1, 1}, {0, 2}}, make_link("i2", 40), {Bytes(5), Source::Assumed}, 4}};
    const int groups = pick(1, 3);
    for (int g = 0; g < groups; ++g) {
      NodeGroup group{pick(0, 1), pick(1, 6)};
      if (pick(0, 2) == 0) {
        if (pick(0, 1) == 0) group.tiers.push_back({make_link("g" + std::to_string(g) + "rack", 30), 2});
        group.tiers.push_back({make_link("g" + std::to_string(g), 25), 0});
      }
      graph.nodes.push_back(group);
    }
    if (pick(0, 1) == 0) {
      graph.tiers.push_back({make_link("rack", 20), 2});
      if (pick(0, 1) == 0) graph.tiers.push_back({make_link("row", 15), 4});
    }
    graph.tiers.push_back({make_link("all", 10), 0});
    if (pick(0, 4) == 0 && num_nodes(graph) > 2) graph.link_overrides = {{0, 2, make_link("pair", 7)}};
    REQUIRE(validate(graph).empty());

    ClusterChange change;
    std::set<DeviceId> touched, lost;
    for (int i = pick(0, 4); i > 0; --i) {
      const int c = pick(0, 1);
      if (num_devices(graph, c) == 0) continue;
      const DeviceId device{c, pick(0, static_cast<int>(num_devices(graph, c)) - 1)};
      if (!touched.insert(device).second) continue;
      const std::string name = graph.device_classes[static_cast<std::size_t>(c)].name;
      if (pick(0, 2) == 0)
        change.slower.push_back({name, device.index, device.index, 0.5});
      else {
        change.lost.push_back({name, device.index, device.index});
        lost.insert(device);
      }
    }
    if (pick(0, 3) == 0) change.added = {{"one", pick(1, 2)}};
    if (static_cast<std::int64_t>(lost.size()) == num_devices(graph)) continue;
    const ChangedCluster changed = apply(graph, change);

    std::int64_t added = 0;
    for (const auto& one : change.added) added += one.count * graph.node_classes[0].devices[0].count;
    CHECK(num_devices(changed.graph) == num_devices(graph) - static_cast<std::int64_t>(lost.size()) + added);
    std::vector<std::pair<DeviceId, DeviceId>> pairs;  // old, new
    std::set<DeviceId> seen;
    for (int c = 0; c < 2; ++c) {
      for (std::int64_t i = 0; i < num_devices(graph, c); ++i) {
        const auto& now = changed.devices[static_cast<std::size_t>(c)][static_cast<std::size_t>(i)];
        CHECK(now.has_value() != lost.contains({c, i}));
        if (!now) continue;
        CHECK(seen.insert(*now).second);
        CHECK(now->index < num_devices(changed.graph, now->device_class));
        const std::string name = graph.device_classes[static_cast<std::size_t>(c)].name;
        CHECK(changed.graph.device_classes[static_cast<std::size_t>(now->device_class)].name ==
              (touched.contains({c, i}) ? name + " at 0.5" : name));
        pairs.push_back({{c, i}, *now});
      }
    }
    for (const auto& [a, a_now] : pairs) {
      for (const auto& [b, b_now] : pairs) {
        if (a == b) continue;
        const LinkClass& before = link_between(graph, a, b);
        const LinkClass& after = link_between(changed.graph, a_now, b_now);
        if (before == after) continue;
        CAPTURE(round, a.device_class, a.index, b.device_class, b.index);
        CHECK(before.name == after.name);
      }
    }
  }
}

TEST_CASE("changes are read from lists, and every mistake is told", "[change_test]") {
  const auto change = parse_change({"a:3", "a:5-7,node:1"}, {"b:0=0.6"}, {"box=2"});
  REQUIRE(change.has_value());
  CHECK(*change == ClusterChange{{{"a", 3, 3}, {"a", 5, 7}, {"node", 1, 1}}, {{"b", 0, 0, 0.6}}, {{"box", 2}}});
  CHECK(parse_change({}, {}, {})->empty());

  const auto bad = parse_change({"a", "a:5-3", ":1"}, {"a:1", "a:1=1.5", "a:1=nan"}, {"box", "box=0", "=1"});
  REQUIRE_FALSE(bad.has_value());
  CHECK(bad.error().details.size() == 9);
  CHECK(bad.error().details[0].path == "--lost");
  CHECK(bad.error().details[3].path == "--slower");
  CHECK(bad.error().details[8].path == "--added");
}

TEST_CASE("what the cluster does not have is named with what it has", "[change_test]") {
  const ResourceGraph graph = make_graph(2, 2, {{make_link("net", 10), 0}});
  const auto bad =
      apply_change(graph, {{{"c", 0, 0}, {"a", 3, 4}, {"node", 2, 2}, {"a", 1, 1}}, {{"a", 1, 1, 0.5}}, {{"rack", 1}}});
  REQUIRE_FALSE(bad.has_value());
  const auto& details = bad.error().details;
  REQUIRE(details.size() == 5);
  CHECK(details[0].expected == "a, or node for whole nodes");
  CHECK(details[1].expected == "a:0-3");
  CHECK(details[2].expected == "node:0-1");
  CHECK(details[3].got == "a:1");
  CHECK(details[4].expected == "box");
  const auto nothing = apply_change(graph, {{{"a", 0, 3}}, {}, {}});
  REQUIRE_FALSE(nothing.has_value());
  CHECK(nothing.error().message == "no device is left");
}

TEST_CASE("two cluster files match class by class in node order", "[change_test]") {
  const ResourceGraph before = make_graph(2, 2, {{make_link("net", 10), 0}});
  ResourceGraph after = make_graph(1, 3, {});
  after.device_classes.insert(after.device_classes.begin(), make_device("new"));
  after.node_classes[0].devices[0].device_class = 1;
  const DeviceMap devices = match_devices(before, after);
  REQUIRE(devices.size() == 1);
  CHECK(devices[0][2] == DeviceId{1, 2});
  CHECK_FALSE(devices[0][3].has_value());
}
