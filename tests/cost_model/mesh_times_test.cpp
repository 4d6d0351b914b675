// C25 and C26 on a chain of 8 x 8 layers, with links whose times are counted by hand.
#include "cost_model/mesh_times.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

/// Every collective takes a second a byte and rank, whatever its kind: what is moved can be read off the time.
class ByteCost final : public FakeCost {
 public:
  using FakeCost::FakeCost;
  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    const double weight = kind == collective::CollectiveKind::AllGather ? 1 : 1000;
    return Seconds(weight * 1e-6 * static_cast<double>(payload.value) * static_cast<double>(devices.size()));
  }
};

struct Scene {
  model::ModelGraph graph = make_chain(4, 8);
  cluster::ResourceGraph resources =
      make_cluster({make_device("d", 1 << 30)}, {4}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  ByteCost cost{graph, resources};
  std::vector<plan::DeviceId> two{{0, 0}, {0, 1}};
};

}  // namespace

TEST_CASE("C55: a layer scatters its result in forward and gathers the gradient in backward") {
  Scene scene;
  // Layer 2: 3 samples of 8 floats are 96 bytes over 2 ranks; half the work of 3 s and 6 s. A device has 4 of 8
  // features and the rows of W for them, so what it makes is a part of the sum.
  const MeshTicks ticks =
      estimate_block_on_mesh(scene.cost, {2, 0, 3, plan::Precision::Float32, 2}, {scene.two, {}, 0});
  CHECK(to_seconds(ticks.forward).value == Approx(1.5 + 96e-3 * 2));
  CHECK(to_seconds(ticks.backward).value == Approx(3.0 + 96e-6 * 2));
  // C28: half of the work is W's.
  CHECK(to_seconds(ticks.weight).value == Approx(1.5));
  CHECK(ticks.input + ticks.weight == ticks.backward);
}

TEST_CASE("C25: without a tensor axis nothing moves") {
  Scene scene;
  const MeshTicks ticks = estimate_block_on_mesh(scene.cost, {2, 0, 3}, {{{0, 0}}, scene.two, 1});
  CHECK(to_seconds(ticks.forward).value == Approx(3.0));
  CHECK(to_seconds(ticks.backward).value == Approx(6.0));
}

TEST_CASE("C26: gathers hide behind the work beside them, and show where they last longer") {
  Scene scene;
  scene.cost.forward.assign(6, 1e-6);
  // 64 parameters: 256 bytes gathered over 2 ranks take 512e-6 s, scattered 0.512 s; the work 3e-6 and 6e-6 s.
  const Mesh at_two{{{0, 0}}, scene.two, 2}, at_three{{{0, 0}}, scene.two, 3};
  const MeshTicks two = estimate_block_on_mesh(scene.cost, {2, 0, 3}, at_two);
  CHECK(to_seconds(two.forward).value == Approx(3e-6));
  CHECK(to_seconds(two.backward).value == Approx(0.512));
  const MeshTicks three = estimate_block_on_mesh(scene.cost, {2, 0, 3}, at_three);
  CHECK(to_seconds(three.forward).value == Approx(512e-6));
  CHECK(to_seconds(three.backward).value == Approx(0.512 + 512e-6));
  CHECK(to_seconds(three.input).value == Approx(512e-6));  // C28
  CHECK(to_seconds(three.weight).value == Approx(0.512 + 512e-6));
  scene.cost.forward.assign(6, 1.0);
  CHECK(to_seconds(estimate_block_on_mesh(scene.cost, {2, 0, 3}, at_three).backward).value == Approx(6.0));
}

TEST_CASE("C26: a device updates its share and gathers the others', at stage 3 later") {
  Scene scene;
  scene.cost.optimizer_per_parameter = 1.0;
  const PersistentElements elements = count_persistent(scene.cost.facts(), 1, 4);
  REQUIRE(elements.held == 3 * 64);
  const auto update = [&](int zero_stage) {
    return to_seconds(
               estimate_update_on_mesh(scene.cost, elements, plan::Precision::Float32, {{}, scene.two, zero_stage}))
        .value;
  };
  CHECK(update(0) == Approx(192));
  CHECK(update(1) == Approx(96 + 192 * 4 * 2e-6));
  CHECK(update(3) == Approx(96));
}

TEST_CASE("C26: each ZeRO stage splits one part more over the replicas") {
  const model::ModelGraph graph = make_chain(4, 8);
  const ModelFacts facts(graph);
  const PersistentElements elements = count_persistent(facts, 1, 4);
  const auto memory = [&](int zero_stage) {
    return estimate_persistent_memory(elements, plan::Precision::BFloat16, zero_stage, 4);
  };
  // 192 parameters: 2 bytes computed with (at stage 3 only while they are gathered), 4 master, 4 gradient, 8 moments; a
  // layer has 64.
  const std::vector<std::vector<std::int64_t>> expected{{192 * 6, 192 * 4, 192 * 8, 0},
                                                        {192 * 2 + 48 * 4, 192 * 4, 48 * 8, 0},
                                                        {192 * 2 + 48 * 4, 48 * 4, 48 * 8, 64 * 4},
                                                        {48 * 4, 48 * 4, 48 * 8, 64 * 4 + 2 * 64 * 2}};
  for (int zero_stage = 0; zero_stage < 4; ++zero_stage) {
    const PersistentMemory got = memory(zero_stage);
    CHECK(std::vector<std::int64_t>{got.parameters.value, got.gradients.value, got.optimizer.value,
                                    got.gathered.value} == expected[static_cast<std::size_t>(zero_stage)]);
  }
  CHECK(count_persistent(facts, 1, 4, 2).held == 3 * 32);
}

TEST_CASE("C55: the cores that compute copy a payload once, of an exchange twice, and those of accelerators do not") {
  Scene scene;
  cluster::DeviceClass& device = scene.resources.device_classes[0];
  const auto forward = [&] {
    return to_seconds(
               estimate_block_on_mesh(scene.cost, {2, 0, 3, plan::Precision::Float32, 2}, {scene.two, {}, 0}).forward)
        .value;
  };
  // 96 bytes are scattered: read and written.
  device.memory_bandwidth.value = BytesPerSecond(96);
  const double slow = forward();
  device.kind = cluster::DeviceKind::Cuda;
  CHECK(slow - forward() == Approx(2));
}
