#include "launcher/control/corrections.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::launcher;

namespace {

using cluster::Source;

/// Three nodes of two devices of one class, with a profile of it.
struct Scene {
  Scene() {
    cluster::DeviceClass device;
    device.name = "cpu-1.0";
    device.memory = {Bytes(1000), Source::Measured};
    device.memory_bandwidth = {BytesPerSecond(100), Source::Measured};
    device.peak_float32 = device.peak_bfloat16 = {FlopPerSecond(10), Source::Measured};
    device.matmul_rates = {{DType::Float32, 64, {FlopPerSecond(8), Source::Measured}}};
    device.launch_overhead = {Seconds(2), Source::Measured};
    cluster::NodeClass node;
    node.name = "node-a";
    node.devices = {{0, 2}};
    node.link = {"shared-memory", {Seconds(1), Source::Measured}, {BytesPerSecond(500), Source::Measured}, 0};
    node.host_memory = {Bytes(1000), Source::Measured};
    node.cores = 2;
    all.resources.device_classes = {device};
    all.resources.node_classes = {node};
    all.resources.nodes = {{0, 3}};
    all.resources.tiers = {{{"tcp", {Seconds(1), Source::Measured}, {BytesPerSecond(50), Source::Measured}, 1}, 0}};
    all.run_node = {0, 1, 2};
    all.profile.blocks = {{"s", "cpu-1.0", 1, Seconds(4), Seconds(8), Bytes(1), Bytes(1)}};
    all.profile.devices = {{"cpu-1.0", Seconds(1), Seconds(2), Seconds(3), Seconds(4), Bytes(5)}};
    for (int n = 0; n < 3; ++n) {
      for (int d = 0; d < 2; ++d) devices.push_back({n, d, "cpu-1.0"});
    }
    REQUIRE(cluster::validate(all.resources).empty());
  }
  MeasuredCluster all;
  std::vector<RankBinding> devices;
};

}  // namespace

TEST_CASE("nothing learnt changes nothing", "[corrections]") {
  Scene scene;
  const cluster::ResourceGraph before = scene.all.resources;
  CHECK(correct(scene.all, scene.devices, {}).empty());
  CHECK(scene.all.resources == before);
}

TEST_CASE("a slow device is a fraction of the fastest, which gives its class its rates", "[corrections]") {
  Scene scene;
  Corrections known;
  known.multiply_rate(0, 0, 0.5);
  known.multiply_rate(0, 1, 0.48);
  known.multiply_rate(2, 1, 0.05);
  const auto slower = correct(scene.all, scene.devices, known);
  REQUIRE(slower.size() == 1);
  CHECK(slower[0].name == "cpu-1.0");
  CHECK(slower[0].first == 5);
  CHECK(slower[0].last == 5);
  CHECK(slower[0].rate_fraction == Approx(0.102));  // of 0.49, in three digits
  const cluster::DeviceClass& device = scene.all.resources.device_classes[0];
  CHECK(device.peak_float32.value.value == Approx(4.9));
  CHECK(device.memory_bandwidth.value.value == Approx(49));
  CHECK(device.matmul_rates[0].rate.value.value == Approx(8 * 0.49));
  CHECK(device.launch_overhead.value.value == Approx(2 / 0.49));
  CHECK(device.memory.value == Bytes(1000));
  CHECK(scene.all.profile.blocks[0].forward.value == Approx(4 / 0.49));
  CHECK(scene.all.profile.blocks[0].backward.value == Approx(8 / 0.49));
  CHECK(scene.all.profile.devices[0].optimizer_per_parameter.value == Approx(1 / 0.49));
  CHECK(scene.all.profile.devices[0].base_memory == Bytes(5));

  // What planning then works on.
  cluster::ClusterChange change;
  change.slower = slower;
  const auto changed = cluster::apply_change(scene.all.resources, change);
  REQUIRE(changed);
  cluster::add_slowed(scene.all.profile, *changed);
  REQUIRE(scene.all.profile.blocks.size() == 2);
  CHECK(scene.all.profile.blocks[1].device_class == "cpu-1.0 at 0.102");
  CHECK(scene.all.profile.blocks[1].forward.value == Approx(4 / 0.49 / 0.102));
}

TEST_CASE("a link of one pair is an override, links that are all off alike are the tier", "[corrections]") {
  Scene scene;
  Corrections known;
  known.multiply_bandwidth(2, 1, 0.1);
  SECTION("one pair") {
    correct(scene.all, scene.devices, known);
    REQUIRE(scene.all.resources.link_overrides.size() == 1);
    CHECK(scene.all.resources.link_overrides[0].node_a == 1);
    CHECK(scene.all.resources.link_overrides[0].node_b == 2);
    CHECK(scene.all.resources.link_overrides[0].link.bandwidth.value.value == Approx(5));
    CHECK(scene.all.resources.link_overrides[0].link.bandwidth.source == Source::Measured);
    CHECK(scene.all.resources.link_overrides[0].link.latency.value == Seconds(1));
    CHECK(scene.all.resources.tiers[0].link.bandwidth.value.value == 50);
  }
  SECTION("one pair that has an override") {
    cluster::LinkClass own = scene.all.resources.tiers[0].link;
    own.bandwidth.value = BytesPerSecond(200);
    scene.all.resources.link_overrides = {{1, 2, own}};
    correct(scene.all, scene.devices, known);
    REQUIRE(scene.all.resources.link_overrides.size() == 1);
    CHECK(scene.all.resources.link_overrides[0].link.bandwidth.value.value == Approx(20));
  }
  SECTION("all pairs") {
    known.multiply_bandwidth(0, 1, 0.1);
    known.multiply_bandwidth(0, 2, 0.11);
    correct(scene.all, scene.devices, known);
    CHECK(scene.all.resources.link_overrides.empty());
    CHECK(scene.all.resources.tiers[0].link.bandwidth.value.value == Approx(5));
  }
  SECTION("all pairs, one of them more than the others") {
    known.multiply_bandwidth(0, 1, 0.1);
    known.multiply_bandwidth(0, 2, 0.5);
    correct(scene.all, scene.devices, known);
    CHECK(scene.all.resources.link_overrides.size() == 3);
  }
  SECTION("inside a node: of its class") {
    Corrections inside;
    inside.multiply_bandwidth(1, 1, 0.2);
    correct(scene.all, scene.devices, inside);
    CHECK(scene.all.resources.node_classes[0].link.bandwidth.value.value == Approx(100));
    CHECK(scene.all.resources.tiers[0].link.bandwidth.value.value == 50);
  }
}

TEST_CASE("corrections multiply, each device and link once, and are the same after JSON", "[corrections]") {
  Corrections known;
  known.multiply_rate(1, 1, 0.5);
  known.multiply_rate(0, 3, 2);
  known.multiply_rate(1, 1, 0.5);
  known.multiply_bandwidth(3, 0, 0.1);
  known.multiply_bandwidth(0, 3, 0.5);
  CHECK(known.devices == std::vector<DeviceCorrection>{{0, 3, 2}, {1, 1, 0.25}});
  CHECK(known.bandwidth_ratio(3, 0) == Approx(0.05));
  CHECK(known.rate_ratio(0, 0) == 1);
  const auto read = corrections_from_json(to_json(known));
  REQUIRE(read);
  CHECK(*read == known);
  CHECK_FALSE(corrections_from_json(JsonObject{{"devices", JsonArray{}}}));
}
