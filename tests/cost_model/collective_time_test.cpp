// C6-C10, C18, C19 against closed forms.
#include "cost_model/collective_time.h"

#include <array>

#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;
using cluster::DeviceId;
using collective::CollectiveKind;

namespace {

constexpr double kMiB = 1 << 20;

std::vector<DeviceId> first_devices(int count) {
  std::vector<DeviceId> devices;
  for (int i = 0; i < count; ++i) devices.push_back({0, i});
  return devices;
}

cluster::ResourceGraph cpus(std::int64_t per_node, std::int64_t nodes, int sharing = 0) {
  return make_cluster({make_device("cpu", 1 << 30, 1e9, 1e18)}, {per_node}, nodes, make_link("inner", 0, 100 * kMiB),
                      make_link("outer", 0, 10 * kMiB, sharing));
}

}  // namespace

TEST_CASE("C10: a message takes latency and its bytes over the link between the two", "[collective_time_test]") {
  const auto graph =
      make_cluster({make_device("cpu", 1, 1, 1)}, {2}, 2, make_link("inner", 0.5, 10), make_link("outer", 2, 1));
  CHECK(estimate_transfer_time(graph, Bytes(20), {0, 0}, {0, 1}).value == Approx(2.5));
  CHECK(estimate_transfer_time(graph, Bytes(20), {0, 0}, {0, 2}).value == Approx(22));
  CHECK(estimate_transfer_time(graph, Bytes(0), {0, 0}, {0, 2}).value == 0);
  CHECK(estimate_transfer_time(graph, Bytes(20), {0, 1}, {0, 1}).value == 0);
}

TEST_CASE("C6: through shared memory every byte is written once", "[collective_time_test]") {
  const auto graph = cpus(4, 1);
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(4)).value ==
        Approx(0.64));
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(1)).value == 0);
}

TEST_CASE("C6: adds cost three moves of memory a byte", "[collective_time_test]") {
  // Two ranks: each adds half of the payload, 32 MiB; memory moves 96 MiB in a second.
  auto graph = cpus(2, 1);
  graph.device_classes[0].memory_bandwidth.value = BytesPerSecond(96 * kMiB);
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(2)).value ==
        Approx(0.64 + 1.0));
}

TEST_CASE("C7: a ring of three nodes sends 2 (P-1)/P of the payload", "[collective_time_test]") {
  const auto graph = cpus(1, 3);
  const double bytes = 2.0 * 2 / 3 * 30 * kMiB;
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(30 << 20), first_devices(3)).value ==
        Approx(bytes / (10 * kMiB)).epsilon(1e-4));
}

TEST_CASE("C8: swaps inside a node cost the node's link, the others share the way out", "[collective_time_test]") {
  // Two nodes of two: halves inside (1/2 of 64 MiB each way, there and back), then quarters between the nodes.
  const double inner = 2 * 32.0 / 100, outer = 2 * 16.0 / 10;
  CHECK(estimate_collective_time(cpus(2, 2), CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(4)).value ==
        Approx(inner + outer));
  CHECK(estimate_collective_time(cpus(2, 2, 1), CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(4)).value ==
        Approx(inner + 2 * outer));
  CHECK(estimate_collective_time(cpus(2, 2, 2), CollectiveKind::AllReduce, Bytes(64 << 20), first_devices(4)).value ==
        Approx(inner + outer));
}

TEST_CASE("C9: a small reduction over an odd number of nodes takes a tree's steps", "[collective_time_test]") {
  auto graph = cpus(1, 3);
  graph.tiers[0].link.latency.value = Seconds(1);
  graph.tiers[0].link.bandwidth.value = BytesPerSecond(1e18);
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64), first_devices(3)).value ==
        Approx(4));  // 2 rounds up, 2 down
}

TEST_CASE("C7: accelerators reduce inside nodes and ring between them", "[collective_time_test]") {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18);
  gpu.kind = cluster::DeviceKind::Cuda;
  const auto graph =
      make_cluster({gpu}, {2}, 3, make_link("inner", 0, 100 * kMiB), make_link("outer", 0, 10 * kMiB, 1));
  // 60 MiB: half crosses the node's link twice; each rank then rings 30 MiB over three nodes, two flows share the way
  // out.
  const double inner = 2 * 30.0 / 100, outer = 2 * 2.0 / 3 * 30 / 10 * 2;
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(60 << 20), first_devices(6)).value ==
        Approx(inner + outer).epsilon(1e-4));
  CHECK(estimate_collective_time(graph, CollectiveKind::Broadcast, Bytes(60 << 20), first_devices(6)).value ==
        Approx(6.0));
}

TEST_CASE("C18: a link is shared by the flows beyond its limit", "[collective_time_test]") {
  CHECK(sharing_slowdown(make_link("l", 0, 1, 0), 100) == 1.0);
  CHECK(sharing_slowdown(make_link("l", 0, 1, 4), 4) == 1.0);
  CHECK(sharing_slowdown(make_link("l", 0, 1, 4), 6) == 1.5);
}

TEST_CASE("C19: a CPU rank copies at its node's own bandwidth, an accelerator not at all", "[collective_time_test]") {
  auto graph =
      make_cluster({make_device("cpu", 1, 1, 40)}, {2}, 1, make_link("inner", 5, 10), make_link("outer", 0, 1));
  CHECK(estimate_copy_time(graph, Bytes(30), {0, 0}).value == Approx(3));
  graph.node_classes[0].link.bandwidth.value = BytesPerSecond(0);
  CHECK(estimate_copy_time(graph, Bytes(30), {0, 0}).value == Approx(1.5));
  graph.device_classes[0].kind = cluster::DeviceKind::Cuda;
  CHECK(estimate_copy_time(graph, Bytes(30), {0, 0}).value == 0);
}

namespace {

/// `groups` of nodes with `per_node` accelerators each; racks of 4 nodes and pods of 16 are faster than what joins
/// them.
cluster::ResourceGraph racks(std::int64_t per_node, std::int64_t nodes, int sharing = 0) {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18);
  gpu.kind = cluster::DeviceKind::Cuda;
  auto graph = make_cluster({gpu}, {per_node}, nodes, make_link("inner", 0.001, 100 * kMiB),
                            make_link("far", 0.04, 10 * kMiB, sharing));
  const cluster::NetworkTier rack{make_link("rack", 0.01, 40 * kMiB, sharing), 4},
      pod{make_link("pod", 0.02, 20 * kMiB, sharing), 16};
  graph.tiers.insert(graph.tiers.begin(), {rack, pod});
  return graph;
}

}  // namespace

TEST_CASE("C36: a shape is a list that is told shortly, and costs the same", "[collective_time_test]") {
  const auto graph = racks(4, 300, 2);
  for (const auto& [first, count, stride, members] : std::vector<std::array<std::int64_t, 4>>{{0, 1, 1, 4},
                                                                                              {0, 3, 1, 4},
                                                                                              {2, 2, 1, 1},
                                                                                              {1, 300 - 1, 1, 2},
                                                                                              {0, 100, 3, 4},
                                                                                              {0, 64, 4, 1},
                                                                                              {5, 40, 1, 3},
                                                                                              {3, 17, 16, 4}}) {
    const GroupShape shape{{{0, first, count, stride, members}}};
    const std::vector<DeviceId> devices = devices_of(graph, shape);
    REQUIRE(static_cast<std::int64_t>(devices.size()) == shape.num_members());
    if (count > 1) CHECK(shape_of(graph, devices).runs == shape.runs);
    for (const CollectiveKind kind :
         {CollectiveKind::AllReduce, CollectiveKind::AllGather, CollectiveKind::AllToAll, CollectiveKind::Broadcast}) {
      for (const std::int64_t bytes : {std::int64_t{1} << 10, std::int64_t{1} << 26}) {
        CHECK(estimate_collective_time(graph, kind, Bytes(bytes), shape).value ==
              estimate_collective_time(graph, kind, Bytes(bytes), devices).value);
      }
    }
  }
}

TEST_CASE("C36: long runs show every link that walking them shows", "[collective_time_test]") {
  // Each tier in turn is the slowest.
  for (std::size_t slowest = 0; slowest < 3; ++slowest) {
    auto graph = racks(1, 300);
    graph.tiers[slowest].link.bandwidth.value = BytesPerSecond(kMiB);
    auto walked = graph;  // an override makes every hop be looked at
    walked.link_overrides.push_back({298, 299, graph.tiers[0].link});
    for (std::int64_t first = 0; first < 20; ++first) {
      for (const std::int64_t stride : {1, 2, 3, 4, 5, 7}) {
        const GroupShape shape{{{0, first, 40, stride, 1}}};
        CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(1 << 26), shape).value ==
              estimate_collective_time(walked, CollectiveKind::AllReduce, Bytes(1 << 26), shape).value);
      }
    }
  }
}

TEST_CASE("C36: nodes with unlike numbers have as many rings as the smaller one", "[collective_time_test]") {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18);
  gpu.kind = cluster::DeviceKind::Cuda;
  const auto graph = make_cluster({gpu}, {4}, 2, make_link("inner", 0, 100 * kMiB), make_link("outer", 0, 10 * kMiB));
  // Four members and two: 3/4 of 64 MiB inside the larger node, halves in two rings of two nodes, each way.
  const std::vector<DeviceId> devices{{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}};
  const double inner = 64 * 0.75 / 100, outer = 64.0 / 2 / 2 / 10;
  CHECK(estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64 << 20), devices).value ==
        Approx(2 * (inner + outer)).epsilon(1e-4));
}

TEST_CASE("C36: groups side by side share the ways out of their nodes", "[collective_time_test]") {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18);
  gpu.kind = cluster::DeviceKind::Cuda;
  const auto graph =
      make_cluster({gpu}, {4}, 2, make_link("inner", 0, 100 * kMiB), make_link("outer", 0, 10 * kMiB, 1));
  const auto time = [&](std::int64_t side_by_side) {
    const GroupShape shape{{{0, 0, 2, 1, 1}}, side_by_side};
    return estimate_collective_time(graph, CollectiveKind::AllReduce, Bytes(64 << 20), shape).value;
  };
  CHECK(time(1) == Approx(6.4).epsilon(1e-4));
  CHECK(time(4) == Approx(4 * 6.4).epsilon(1e-4));
}

TEST_CASE("C36: an exchange sends to the own node and to others side by side", "[collective_time_test]") {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18);
  gpu.kind = cluster::DeviceKind::Cuda;
  // Eight ranks on two nodes: 3 of 8 parts of 80 MiB stay inside, 4 leave over a card that four ranks share.
  const auto graph =
      make_cluster({gpu}, {4}, 2, make_link("inner", 0, 100 * kMiB), make_link("outer", 0, 10 * kMiB, 1));
  CHECK(estimate_collective_time(graph, CollectiveKind::AllToAll, Bytes(80 << 20), first_devices(8)).value ==
        Approx(40.0 / 10 * 4));
  const auto wide = make_cluster({gpu}, {4}, 2, make_link("inner", 0, kMiB), make_link("outer", 0, 1e18));
  CHECK(estimate_collective_time(wide, CollectiveKind::AllToAll, Bytes(80 << 20), first_devices(8)).value ==
        Approx(30.0));
}
