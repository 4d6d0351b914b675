#include "launcher/control/measurement.h"

#include "proto/control.pb.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

struct FakeDevice {
  double cores = 1;
  std::string model = "m";
  double rate = 1e9;
};

/// Nodes with these devices; every rank measured its device's rate; links as given.
Measurements make_measurements(const std::vector<std::vector<FakeDevice>>& nodes,
                               const std::vector<std::tuple<int, int, double, double>>& links) {
  Measurements made;
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    control::AgentHello hello;
    hello.set_cores(2);
    hello.set_memory_bytes(1000);
    for (const FakeDevice& fake : nodes[n]) {
      auto& device = *hello.add_devices();
      device.set_kind("cpu");
      device.set_cores(fake.cores);
      device.set_name(fake.model);
      device.set_memory_bytes(400);
    }
    made.nodes.push_back({static_cast<int>(n), "h", "node", hello.SerializeAsString()});
  }
  made.ranks = bind_all_devices(made.nodes);
  for (std::size_t r = 0; r < made.ranks.size(); ++r) {
    control::MeasureReport report;
    const FakeDevice& fake =
        nodes[static_cast<std::size_t>(made.ranks[r].node)][static_cast<std::size_t>(made.ranks[r].local_device)];
    for (const auto& [size, factor] : {std::pair{128, 0.5}, std::pair{512, 1.0}}) {
      auto& rate = *report.add_matmul();
      rate.set_dtype("float32");
      rate.set_size(size);
      rate.set_flop_per_second(fake.rate * factor);
    }
    report.set_memory_bytes_per_second(10 * fake.rate);
    report.set_launch_overhead_seconds(1e-6);
    for (const auto& [from, to, latency, bandwidth] : links) {
      if (from != static_cast<int>(r)) continue;
      auto& link = *report.add_links();
      link.set_from(from);
      link.set_to(to);
      link.set_latency_seconds(latency);
      link.set_bytes_per_second(bandwidth);
    }
    made.reports.push_back(report.SerializeAsString());
  }
  return made;
}

}  // namespace

TEST_CASE("devices of equal kind, cores and model are one class", "[measurement]") {
  const auto measurements = make_measurements({{{1, "a"}, {0.4, "a"}}, {{1, "a"}, {1, "b"}}}, {});
  REQUIRE(measurements.ranks.size() == 4);
  CHECK(measurements.ranks[0].device_class == "cpu-1.0");
  CHECK(measurements.ranks[1].device_class == "cpu-0.4");
  CHECK(measurements.ranks[2].device_class == "cpu-1.0");
  CHECK(measurements.ranks[3].device_class == "cpu-1.0-b");
  CHECK(measurements.ranks[3].local_device == 1);
}

TEST_CASE("rates of a class are medians over its ranks, the peak is the best size", "[measurement]") {
  const auto measurements = make_measurements({{{1, "a", 1e9}, {1, "a", 3e9}, {1, "a", 2e9}}}, {{0, 1, 1e-6, 5e9}});
  const auto cluster = build_cluster(measurements);
  REQUIRE(cluster);
  REQUIRE(cluster->resources.device_classes.size() == 1);
  const auto& device = cluster->resources.device_classes[0];
  CHECK(device.peak_float32.value.value == 2e9);
  CHECK(device.peak_float32.source == cluster::Source::Measured);
  CHECK(device.matmul_rates[0].size == 128);
  CHECK(device.matmul_rates[0].rate.value.value == 1e9);
  CHECK(device.memory_bandwidth.value.value == 2e10);
  CHECK(device.memory.value.value == 400);
  CHECK(cluster->resources.node_classes[0].link.bandwidth.value.value == 5e9);
  CHECK(cluster->resources.tiers.empty());
  CHECK(cluster::validate(cluster->resources).empty());
}

TEST_CASE("equal nodes stand together, and devices find their way back to their agents", "[measurement]") {
  // Nodes 0 and 2 are equal, node 1 is not: the graph numbers them 0 -> 0, 2 -> 1, 1 -> 2.
  const auto measurements = make_measurements(
      {{{1}, {1}}, {{1}}, {{1}, {1}}},
      {{0, 1, 1e-6, 5e9}, {3, 4, 1e-6, 5e9}, {0, 2, 1e-4, 1e8}, {0, 3, 1e-4, 1e8}, {2, 3, 1e-4, 1e7}});
  const auto cluster = build_cluster(measurements);
  REQUIRE(cluster);
  CHECK(cluster->run_node == std::vector<int>{0, 2, 1});
  REQUIRE(cluster->resources.nodes.size() == 2);
  CHECK(cluster->resources.nodes[0].count == 2);
  CHECK(cluster::num_devices(cluster->resources) == 5);
  std::vector<std::pair<int, int>> places;
  for (std::int64_t i = 0; i < 5; ++i) {
    const RankBinding binding = bind_device(*cluster, measurements.ranks, {0, i});
    places.emplace_back(binding.node, binding.local_device);
  }
  CHECK(places == std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {2, 0}, {2, 1}, {1, 0}});
  // The link between nodes 1 and 2 of the run is ten times slower than the median: kept apart, under the graph's
  // numbers.
  CHECK(cluster->resources.tiers[0].link.bandwidth.value.value == 1e8);
  REQUIRE(cluster->resources.link_overrides.size() == 1);
  CHECK(cluster->resources.link_overrides[0].node_a == 1);
  CHECK(cluster->resources.link_overrides[0].node_b == 2);
  CHECK(cluster->resources.link_overrides[0].link.bandwidth.value.value == 1e7);
  CHECK(cluster::validate(cluster->resources).empty());
}

TEST_CASE("backend auto is host on CPU; mpi stays on one node", "[measurement]") {
  const auto one = make_measurements({{{1}}}, {});
  CHECK(*resolve_backend("auto", one.nodes) == "host");
  CHECK(*resolve_backend("mpi", one.nodes) == "mpi");
  const auto two = make_measurements({{{1}}, {{1}}}, {});
  CHECK(resolve_backend("mpi", two.nodes).error().code == ErrorCode::Unimplemented);
}

TEST_CASE("a node that comes later is as one that was measured with the others", "[measurement]") {
  // Node 0 has two devices, node 1 one; a second node like node 0 comes.
  const std::vector<FakeDevice> pair{{1, "a", 2e9}, {0.5, "a", 1e9}}, single{{1, "b", 3e9}};
  const std::vector<std::tuple<int, int, double, double>> links{{0, 1, 1e-6, 5e9}, {0, 2, 1e-4, 1e8}};
  auto later = make_measurements({pair, single}, links);
  NodeView node = later.nodes[0];
  node.agent = 7;
  CHECK(has_same_devices(node.hello, later.nodes[0].hello));
  CHECK_FALSE(has_same_devices(node.hello, later.nodes[1].hello));
  REQUIRE(add_like_node(later, node, 0));
  auto all_links = links;
  all_links.insert(all_links.end(), {{3, 4, 1e-6, 5e9}, {0, 3, 1e-4, 1e8}});
  const auto expected = build_cluster(make_measurements({pair, single, pair}, all_links));
  const auto cluster = build_cluster(later);
  REQUIRE(expected);
  REQUIRE(cluster);
  CHECK(cluster->resources == expected->resources);
  CHECK(cluster->run_node == expected->run_node);
  CHECK(later.nodes[2].agent == 7);
  CHECK(later.ranks[4].node == 2);
}

TEST_CASE("where no link between nodes is known it has to be added", "[measurement]") {
  auto measurements = make_measurements({{{1, "a"}, {1, "a"}}}, {{0, 1, 1e-6, 5e9}});
  CHECK_FALSE(add_like_node(measurements, measurements.nodes[0], 0));
  add_link(measurements, 1, 0, Seconds(2e-4), BytesPerSecond(3e8));
  const auto cluster = build_cluster(measurements);
  REQUIRE(cluster);
  REQUIRE(cluster->resources.tiers.size() == 1);
  CHECK(cluster->resources.tiers[0].link.latency.value.value == 2e-4);
  CHECK(cluster->resources.tiers[0].link.bandwidth.value.value == 3e8);
  CHECK(cluster->resources.node_classes[0].link.bandwidth.value.value == 5e9);
  CHECK(cluster->resources.nodes[0].count == 2);
  CHECK(cluster::validate(cluster->resources).empty());
}
