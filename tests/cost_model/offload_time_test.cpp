// C30 and the way to the host of C34, on links and memories counted by hand.
#include "cost_model/offload_time.h"

#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

/// Two nodes of two devices; host memory of 1000 bytes moves 128 a second.
cluster::ResourceGraph hosts(int sharing) {
  auto graph =
      make_cluster({make_device("d", 1 << 30, 1, 64)}, {2}, 2, make_link("inner", 0, 5), make_link("outer", 0, 1));
  graph.node_classes[0].host_link = make_link("host", 1, 10, sharing);
  graph.node_classes[0].host_memory.value = Bytes(1000);
  graph.node_classes[0].host_memory_bandwidth.value = BytesPerSecond(128);
  return graph;
}

}  // namespace

TEST_CASE("C34: to the host goes over its link, shared by the devices of the node", "[offload_time_test]") {
  CHECK(estimate_host_transfer(hosts(0), Bytes(100), {0, 3}).value == Approx(1 + 10));
  CHECK(estimate_host_transfer(hosts(1), Bytes(100), {0, 3}).value == Approx(1 + 20));
  CHECK(estimate_host_transfer(hosts(1), Bytes(0), {0, 3}).value == 0);
  auto unknown = hosts(0);
  unknown.node_classes[0].host_link = {};
  CHECK(estimate_host_transfer(unknown, Bytes(100), {0, 0}).value == Approx(20));
  unknown.node_classes[0].link = {};
  CHECK(estimate_host_transfer(unknown, Bytes(100), {0, 0}).value == Approx(100.0 / 32));
}

TEST_CASE("C30: gradients in, 32 bytes a parameter in the node's memory, parameters out", "[offload_time_test]") {
  // 10 parameters: 40 bytes in, 320 at half of 128 a second, 20 or 40 out.
  CHECK(estimate_host_update(hosts(0), 10, 2, {0, 0}).value == Approx((1 + 4) + 5 + (1 + 2)));
  CHECK(estimate_host_update(hosts(0), 10, 4, {0, 0}).value == Approx((1 + 4) + 5 + (1 + 4)));
  auto unknown = hosts(0);
  unknown.node_classes[0].host_memory_bandwidth.value = BytesPerSecond(0);
  CHECK(estimate_host_update(unknown, 10, 4, {0, 0}).value == Approx(5 + 5 + 320 / (kAssumedHostBandwidth.value / 2)));
}

TEST_CASE("C30: devices of a node share its memory", "[offload_time_test]") {
  CHECK(host_memory_of(hosts(0), {0, 2}).value == 500);
}
