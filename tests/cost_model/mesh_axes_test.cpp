// C29 to C34 on one layer of a small decoder, with links and rates whose times are counted by hand.
#include <algorithm>

#include "common/json.h"
#include "cost_model/memory.h"
#include "cost_model/mesh_times.h"
#include "cost_model/offload_time.h"
#include "cost_model/roofline.h"
#include "cost_model/simulator.h"
#include "model/load.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;
using plan::Precision;
using plan::Recompute;

namespace {

constexpr Precision kFull = Precision::Float32;

model::ModelGraph make_decoder(bool experts) {
  JsonObject config{{"model_type", experts ? "mixtral" : "llama"},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 8},
                    {"num_key_value_heads", 2},
                    {"hidden_size", 64},
                    {"intermediate_size", 96},
                    {"vocab_size", 64},
                    {"max_position_embeddings", 16}};
  if (experts) {
    config["num_local_experts"] = 4;
    config["num_experts_per_tok"] = 2;
  }
  auto graph = model::build_from_config(config, {.sequence_length = 16});
  REQUIRE(graph);
  return std::move(*graph);
}

/// Exchanges take a millisecond a byte and rank, gathers a microsecond, reductions and scatters none.
class ByteCost final : public FakeCost {
 public:
  using FakeCost::FakeCost;
  Seconds estimate_collective(collective::CollectiveKind kind, Bytes payload,
                              const std::vector<plan::DeviceId>& devices) const override {
    const double weight = kind == collective::CollectiveKind::AllToAll    ? 1e-3
                          : kind == collective::CollectiveKind::AllGather ? 1e-6
                                                                          : 0;
    return Seconds(weight * static_cast<double>(payload.value) * static_cast<double>(devices.size()));
  }
};

struct Scene {
  explicit Scene(bool experts = false, double bandwidth = 1e6)
      : graph(make_decoder(experts)),
        resources(
            make_cluster({make_device("d", 1 << 30)}, {4}, 1, make_link("l", 0, bandwidth), make_link("o", 0, 1e9))),
        cost(graph, resources) {}
  model::ModelGraph graph;
  cluster::ResourceGraph resources;
  ByteCost cost;
  std::vector<plan::DeviceId> two{{0, 0}, {0, 1}}, four{{0, 0}, {0, 1}, {0, 2}, {0, 3}};
};

double forward(const MeshTicks& ticks) { return to_seconds(ticks.forward).value; }
double backward(const MeshTicks& ticks) { return to_seconds(ticks.backward).value; }
double recompute(const MeshTicks& ticks) { return to_seconds(ticks.recompute).value; }

}  // namespace

TEST_CASE("C29: a hop shows where it outlasts the attention of one block of keys", "[mesh_axes]") {
  Scene scene;
  const Mesh ring{{}, {}, 0, scene.four};
  const BlockWork work{1, 0, 4, kFull, 1, 4};
  // Keys and values: 4 samples x 16 tokens x 2 heads x 8 deep x 2 x 4 bytes, a quarter: 2048 bytes, 2.048 ms.
  // A second a sample: 1 s of work on each of four, no attention in it: three hops, in backward of twice the bytes.
  MeshTicks ticks = estimate_block_on_mesh(scene.cost, work, ring);
  CHECK(forward(ticks) == Approx(1 + 3 * 2.048e-3));
  CHECK(backward(ticks) == Approx(2 + 3 * 4.096e-3));
  // Attention of 4 ms forward and 8 ms backward: pieces of 1 and 2 ms hide as much of each hop.
  scene.cost.attention_share = 4e-3;
  ticks = estimate_block_on_mesh(scene.cost, work, ring);
  CHECK(forward(ticks) == Approx(1 + 3 * 1.048e-3));
  CHECK(backward(ticks) == Approx(2 + 3 * 2.096e-3));
  scene.cost.attention_share = 1;
  ticks = estimate_block_on_mesh(scene.cost, work, ring);
  CHECK(forward(ticks) == Approx(1));
  CHECK(backward(ticks) == Approx(2));
}

TEST_CASE("C29: an infinitely fast link leaves compute over the axis, one device everything", "[mesh_axes]") {
  Scene fast(false, 1e30);
  const double whole = forward(estimate_block_on_mesh(fast.cost, {1, 0, 4}, {}));
  for (const int context : {1, 2, 4}) {
    const Mesh ring{{}, {}, 0, {fast.four.begin(), fast.four.begin() + context}};
    CHECK(forward(estimate_block_on_mesh(fast.cost, {1, 0, 4, kFull, 1, context}, ring)) == Approx(whole / context));
  }
}

TEST_CASE("C29: rings of a tensor axis leave a node side by side and share its way out", "[mesh_axes]") {
  Scene scene;
  scene.resources =
      make_cluster({make_device("d", 1 << 30)}, {2}, 2, make_link("l", 0, 1e30), make_link("o", 0, 1e6, 1));
  const Mesh ring{scene.two, {}, 0, {{0, 0}, {0, 2}}, {}, {}, plan::Offload::None, scene.four};
  // Two tensor devices have one key head each: half of 4096 bytes, over a card that two rings share.
  scene.cost.forward.assign(scene.cost.forward.size(), 0.0);
  const BlockWork work{1, 0, 4, kFull, 2, 2};
  const MeshTicks ticks = estimate_block_on_mesh(scene.cost, work, ring);
  // C55: one gather of the stream, 4 samples x 8 rows x 64 x 4 bytes, between two devices; sums take no time here.
  // Each of its three transitions is read and written once more.
  CHECK(to_seconds(ticks.forward).value == Approx(8192 * 2e-6 + 2048 * 2 / 1e6 + 3 * 2 * 8192 / 1e9));
}

TEST_CASE("C29: the sequence splits into pieces from both ends", "[mesh_axes]") {
  const model::ModelGraph graph = make_decoder(false);
  const ModelFacts facts(graph);
  CHECK(facts.context_splits(1));
  CHECK(facts.context_splits(8));
  CHECK_FALSE(facts.context_splits(16));  // 16 tokens are no 32 pieces
  CHECK_FALSE(facts.context_splits(3));
  const model::ModelGraph chain = make_chain(2, 8);
  CHECK(ModelFacts(chain).context_splits(1));
  CHECK_FALSE(ModelFacts(chain).context_splits(2));
}

TEST_CASE("C29: on a context axis operators do their part, attention in as many pieces", "[mesh_axes]") {
  const model::ModelGraph graph = make_decoder(false);
  const ModelFacts facts(graph);
  cluster::DeviceClass device = make_device("d", 1 << 30, 1e6, 1e15);
  const BlockTime one = estimate_block_roofline(facts, device, {1, 0, 4});
  const BlockTime two = estimate_block_roofline(facts, device, {1, 0, 4, kFull, 1, 2});
  CHECK(two.forward.value == Approx(one.forward.value / 2));
  CHECK(two.backward.value == Approx(one.backward.value / 2));
  CHECK(two.attention_forward.value == Approx(one.attention_forward.value / 2));
  CHECK(one.attention_forward.value > 0);
  // Of the rotary tables each layer slices its rows, cosines and sines: 8 x 8 floats.
  CHECK(two.saved.value * 2 - one.saved.value == 2 * 2 * 8 * 8 * 4);
  device.launch_overhead.value = Seconds(10);
  const double launches = estimate_block_roofline(facts, device, {1, 0, 4}).forward.value - one.forward.value,
               pieces =
                   estimate_block_roofline(facts, device, {1, 0, 4, kFull, 1, 2}).forward.value - two.forward.value;
  CHECK(pieces - launches == Approx(10 + 2 * 10));  // of attention, and of the slices
}

TEST_CASE("C29: a mesh has its axes by position, and shards over replicas and parts of the sequence", "[mesh_axes]") {
  plan::Stage stage;
  for (int r = 0; r < 4; ++r) {
    plan::Replica replica;
    for (int d = 0; d < 4; ++d) replica.devices.push_back({0, 10 * r + d});
    replica.tensor = replica.context = replica.expert = 2;
    stage.replicas.push_back(replica);
  }
  const Mesh mesh = make_mesh(stage, 1);
  using Devices = std::vector<plan::DeviceId>;
  CHECK(mesh.tensor_group == Devices{{0, 10}, {0, 11}});
  CHECK(mesh.context_group == Devices{{0, 10}, {0, 12}});
  CHECK(mesh.replica_group == Devices{{0, 10}, {0, 12}, {0, 0}, {0, 2}, {0, 20}, {0, 22}, {0, 30}, {0, 32}});
  CHECK(mesh.expert_group == Devices{{0, 10}, {0, 0}});
  CHECK(mesh.expert_replica_group == Devices{{0, 10}, {0, 12}, {0, 30}, {0, 32}});
}

TEST_CASE("each replica of a role is told its own memory where experts do not divide", "[mesh_axes]") {
  Scene scene(true);
  auto plan =
      make_plan(scene.graph, scene.resources, {{0, scene.graph.num_blocks(), {{0, 0}, {0, 1}, {0, 2}}, {7, 10, 7}}}, 1);
  for (plan::Replica& replica : plan.stages[0].replicas) replica.expert = 3;
  plan.roles.clear();
  plan::fill_roles(plan, scene.graph, Bytes(std::int64_t{1} << 40));
  const auto simulation = simulate(scene.cost, plan);
  REQUIRE(simulation);
  std::vector<std::int64_t> parameters(3, -1);  // by rank
  for (const plan::DeviceEstimate& device : simulation->estimate.devices) {
    for (const int rank : device.ranks) {
      CHECK(device.parts == estimate_memory(scene.cost, plan, 0, rank));
      parameters[static_cast<std::size_t>(rank)] = device.parts.parameters.value;
    }
  }
  // Of 4 experts of each layer the first replica holds two, the others one; the first and the last have one role.
  CHECK(parameters[0] > parameters[2]);
  CHECK(parameters[1] == parameters[2]);
  CHECK(plan.roles.size() == 2);
}

TEST_CASE("C30: the optimizer's memory moves to the host", "[mesh_axes]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const ModelFacts facts(graph);
  const PersistentElements elements = count_persistent(facts, 1, 4);
  const auto memory = [&](Precision precision, int zero_stage) {
    return estimate_persistent_memory(elements, precision, zero_stage, 4, 1, plan::Offload::Optimizer);
  };
  // 192 parameters; float32 is computed with itself, bfloat16 with 2 bytes; on the host master, moments and gradient.
  CHECK(memory(kFull, 0).parameters.value == 192 * 4);
  CHECK(memory(Precision::BFloat16, 0).parameters.value == 192 * 2);
  CHECK(memory(Precision::BFloat16, 0).optimizer.value == 0);
  CHECK(memory(Precision::BFloat16, 0).gradients.value == 192 * 4);
  CHECK(memory(Precision::BFloat16, 0).host.value == 192 * 16);
  CHECK(memory(Precision::BFloat16, 1).host.value == 48 * 16);
}

TEST_CASE("C30: an offloaded update takes the host's time", "[mesh_axes]") {
  Scene scene;
  scene.cost.optimizer_per_parameter = 1.0;
  const PersistentElements elements{1000};
  const Mesh mesh{{}, {{0, 0}}, 0, {}, {}, {}, plan::Offload::Optimizer};
  CHECK(to_seconds(estimate_update_on_mesh(scene.cost, elements, kFull, mesh)).value ==
        Approx(estimate_host_update(scene.resources, 1000, 4, {0, 0}).value).margin(1e-9));
}

TEST_CASE("C31: each recompute costs what it runs again", "[mesh_axes]") {
  Scene scene;
  const auto extra = [&](Recompute value) {
    return recompute(estimate_block_on_mesh(scene.cost, {1, 0, 4, kFull, 1, 1, 1, value}, {}));
  };
  CHECK(extra(Recompute::None) == 0);
  CHECK(extra(Recompute::Full) == Approx(4));
  CHECK(extra(Recompute::Selective) == Approx(1));
}

TEST_CASE("C31: selective recompute keeps less than none and takes less than full", "[mesh_axes]") {
  const model::ModelGraph graph = make_decoder(false);
  const ModelFacts facts(graph);
  const BlockTime time = estimate_block_roofline(facts, make_device("d", 1 << 30, 1e6, 1e6), {1, 0, 4});
  const Bytes input = facts.activation_bytes(1, 4, kFull);
  CHECK(input < time.selective);
  CHECK(time.selective < time.saved);
  CHECK(Seconds(0) < time.replayed);
  CHECK(time.replayed < time.forward);
  CHECK(time.replayed.value <= Approx((time.forward - time.attention_forward).value));
}

TEST_CASE("C32: tokens travel to their experts and back, in backward their gradients", "[mesh_axes]") {
  Scene scene(true);
  const Mesh mesh{{}, scene.two, 0, {}, scene.two, {{0, 0}}};
  // 4 samples x 16 tokens x 2 experts x 64 x 4 bytes, the busiest device 1.25 times that, on 2 ranks.
  const double exchange = 4 * 16 * 2 * 64 * 4 * 1.25 * 2 * 1e-3;
  const MeshTicks ticks = estimate_block_on_mesh(scene.cost, {1, 0, 4, kFull, 1, 1, 2}, mesh);
  CHECK(forward(ticks) == Approx(4 + 2 * exchange));
  CHECK(backward(ticks) == Approx(8 + 2 * exchange));
}

TEST_CASE("C32: on an expert axis products with experts grow by the imbalance, tables shrink", "[mesh_axes]") {
  const model::ModelGraph graph = make_decoder(true);
  const ModelFacts facts(graph);
  // Arithmetic alone.
  cluster::DeviceClass device = make_device("d", 1 << 30, 1e6, 1e15);
  device.kind = cluster::DeviceKind::Cuda;
  const double one = estimate_block_roofline(facts, device, {1, 0, 4}).forward.value,
               two = estimate_block_roofline(facts, device, {1, 0, 4, kFull, 1, 1, 2}).forward.value;
  const double experts = 2.0 * 4 * 16 * 2 * 3 * 96 * 64 / 1e6;
  CHECK(two - one == Approx(0.25 * experts).epsilon(1e-6));
  // 4 samples of this replica and 2 of the other: experts have 3 on each device.
  BlockWork fewer{1, 0, 4, kFull, 1, 1, 2};
  fewer.expert_samples = 6;
  CHECK(estimate_block_roofline(facts, device, fewer).forward.value - one ==
        Approx((1.25 * 3 / 4 - 1) * experts).epsilon(1e-6));
  // Memory traffic alone, one sample: tables of 4 x 3 x 96 x 64 floats are halved, the rows grow by a quarter.
  device = make_device("d", 1 << 30, 1e30, 1e6);
  device.kind = cluster::DeviceKind::Cuda;
  const double tables = 4 * 3 * 96 * 64 * 4 / 1e6;
  const auto traffic = [&](int expert) {
    return estimate_block_roofline(facts, device, {1, 0, 1, kFull, 1, 1, expert}).forward.value;
  };
  const double rows = 4 * (traffic(2) - traffic(1) + tables / 2);  // a quarter of them is what grew
  CHECK(traffic(4) - traffic(2) == Approx(-tables / 4));
  CHECK(rows > 0);
}

TEST_CASE("C32: a profile says how unevenly experts are chosen", "[mesh_axes]") {
  Scene scene(true);
  const model::ModelGraph& graph = scene.graph;
  const auto resources =
      make_cluster({make_device("d", 1 << 30, 1e6, 1e15)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  cluster::Profile profile;
  const std::string& signature = graph.blocks[1].signature;
  profile.blocks = {{signature, "d", 4, Seconds(1), Seconds(2), Bytes(0), Bytes(0), 0.3},
                    {signature, "d", 8, Seconds(2), Seconds(4), Bytes(0), Bytes(0), 0.2}};
  const BlockWork two{1, 0, 4, kFull, 1, 1, 2};
  {
    const auto cost = make_cost_model(graph, resources, &profile);
    // Both replicas together have 8 samples; of 4 experts, two places.
    CHECK(cost->estimate_block(two).expert_imbalance == expected_imbalance(4, 2, 0.2));
    CHECK(cost->estimate_block({1, 0, 4}).expert_imbalance == 1);
    CHECK(cost->estimate_block(two).forward > cost->estimate_block({1, 0, 4}).forward);
  }
  profile.blocks[1].expert_load_cv = 0;
  const auto balanced = make_cost_model(graph, resources, &profile);
  CHECK(balanced->estimate_block(two).forward.value == Approx(balanced->estimate_block({1, 0, 4}).forward.value));
  profile.blocks[1].expert_load_cv = -1;
  CHECK(make_cost_model(graph, resources, &profile)->estimate_block(two).expert_imbalance == kExpertImbalance);
  CHECK(make_cost_model(graph, resources, nullptr)->estimate_block(two).expert_imbalance == kExpertImbalance);
}

TEST_CASE("C33: experts are held in parts and split over those who hold them", "[mesh_axes]") {
  const model::ModelGraph graph = make_decoder(true);
  const ModelFacts facts(graph);
  CHECK(facts.expert_splits(2));
  CHECK(facts.expert_splits(4));
  CHECK_FALSE(facts.expert_splits(8));
  const model::ModelGraph dense = make_decoder(false);
  CHECK_FALSE(ModelFacts(dense).expert_splits(2));
  const PersistentElements whole = count_persistent(facts, 1, 2), half = count_persistent(facts, 1, 2, 1, 2);
  const std::int64_t tables = 4 * 3 * 96 * 64;
  CHECK(whole.held_experts == tables);
  CHECK(half.held_experts == tables / 2);
  CHECK(whole.held - half.held == tables / 2);
  CHECK(half.held_experts == tables / 2);
  // Eight devices, two and two hold the same experts: 4 holders.
  PersistentElements elements;
  elements.held = 1000 + 80;
  elements.held_experts = 80;
  CHECK(estimate_persistent_memory(elements, kFull, 3, 8, 2).parameters.value == (125 + 20) * 4);
  CHECK(estimate_persistent_memory(elements, kFull, 0, 8, 2).parameters.value == 1080 * 4);
  CHECK(estimate_persistent_memory(elements, kFull, 1, 8, 2).optimizer.value == (125 + 20) * 8);
}

TEST_CASE("C33: experts' gradients are reduced among the fewer devices that hold them", "[mesh_axes]") {
  CHECK(reduced_elements(1000, 10, 8, 1) == 1010);
  CHECK(reduced_elements(1000, 10, 8, 8) == 1000);  // nobody else holds them
  // A ring of 2 moves 1/2 of the bytes, one of 8 moves 7/8.
  CHECK(reduced_elements(1000, 7, 8, 4) == 1004);
  Scene scene(true);
  const Mesh mesh{{}, scene.four, 1, {}, scene.two, scene.two};
  PersistentElements elements;
  elements.held = 1100;
  elements.held_experts = 100;
  // Gathers: 1000 elements over 4 devices, 100 over 2.
  CHECK(to_seconds(estimate_update_on_mesh(scene.cost, elements, kFull, mesh)).value ==
        Approx((4000 * 4 + 400 * 2) * 1e-6));
}

TEST_CASE("C34: kept bytes go to the host beside the forward and come back beside the backward", "[mesh_axes]") {
  Scene scene;
  scene.cost.saved.assign(scene.cost.saved.size(), 10'000'000);  // a sample
  scene.resources.node_classes[0].host_link = make_link("host", 0, 10e6);
  const Mesh mesh{{}, {{0, 0}}, 0, {}, {}, {}, plan::Offload::Activations};
  const auto with = [&](Recompute value) {
    return estimate_block_on_mesh(scene.cost, {1, 0, 4, kFull, 1, 1, 1, value}, mesh);
  };
  // 40 MB at 10 MB/s beside 4 and 8 s of work.
  CHECK(forward(with(Recompute::None)) == Approx(4));
  scene.resources.node_classes[0].host_link = make_link("host", 0, 4e6);
  CHECK(forward(with(Recompute::None)) == Approx(10));
  CHECK(backward(with(Recompute::None)) == Approx(10));
  // Half of them, and a quarter of the forward again; all of the forward again without its transfer.
  CHECK(forward(with(Recompute::Selective)) == Approx(5));
  CHECK(recompute(with(Recompute::Selective)) == Approx(1));
  CHECK(recompute(with(Recompute::Full)) == Approx(4));
}

TEST_CASE("C34: two blocks' tensors stay on the device, all others on the host", "[mesh_axes]") {
  Scene scene;
  scene.cost.saved.assign(scene.cost.saved.size(), 1000);
  StageWork work;
  work.first_block = 1;
  work.end_block = 3;
  work.samples = 1;
  work.recompute.assign(2, Recompute::None);
  work.list = plan::make_schedule(plan::ScheduleKind::GPipe, 0, 1, 10);
  CHECK(estimate_stage_memory(scene.cost, work).activations.value == 20 * 1000);
  CHECK(estimate_stage_host_memory(scene.cost, work).value == 0);
  work.offload = plan::Offload::Activations;
  CHECK(estimate_stage_memory(scene.cost, work).activations.value == 2 * 1000);
  CHECK(estimate_stage_host_memory(scene.cost, work).value == 20 * 1000);
  work.recompute = {Recompute::Selective, Recompute::None};
  CHECK(estimate_stage_host_memory(scene.cost, work).value == 15 * 1000);
}

TEST_CASE("C29, C31, C33: memory of a stage falls along every axis", "[mesh_axes]") {
  Scene scene(true);
  scene.cost.saved.assign(scene.cost.saved.size(), 100'000);
  StageWork work;
  work.first_block = 1;
  work.end_block = 3;
  work.samples = 4;
  work.replicas = 4;
  work.recompute.assign(2, Recompute::None);
  work.list = plan::make_schedule(plan::ScheduleKind::GPipe, 0, 1, 4);
  const auto total = [&](const StageWork& of) { return estimate_stage_memory(scene.cost, of).total().value; };
  StageWork context = work, expert = work, selective = work, full = work, host = work;
  context.context = 2;
  expert.expert = 2;
  selective.recompute.assign(2, Recompute::Selective);
  full.recompute.assign(2, Recompute::Full);
  host.offload = plan::Offload::Optimizer;
  CHECK(total(context) < total(work));
  CHECK(total(expert) < total(work));
  CHECK(total(host) < total(work));
  CHECK(total(selective) < total(work));
  CHECK(total(full) < total(selective));
  // Activations and edges halve exactly.
  const plan::MemoryParts one = estimate_stage_memory(scene.cost, work);
  const plan::MemoryParts two = estimate_stage_memory(scene.cost, context);
  CHECK(two.activations.value * 2 == one.activations.value);
  CHECK(two.parameters == one.parameters);
}

TEST_CASE("C36: positions of a tensor axis gather side by side", "[mesh_axes]") {
  // Two nodes of two devices with one card each; nothing but the way out takes time.
  const model::ModelGraph graph = make_chain(4, 8);
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e30, 1e30);
  gpu.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({gpu}, {2}, 2, make_link("l", 0, 1e30), make_link("o", 0, 1e6, 1));
  const auto cost = make_cost_model(graph, resources, nullptr);
  PersistentElements elements;
  elements.held = 1'000'000;
  const auto update = [&](std::vector<plan::DeviceId> tensor_group) {
    return to_seconds(estimate_update_on_mesh(*cost, elements, kFull, {std::move(tensor_group), {{0, 0}, {0, 2}}, 1}))
        .value;
  };
  CHECK(update({{0, 0}}) == Approx(2).epsilon(1e-3));  // half of 4 MB at 1 MB/s
  CHECK(update({{0, 0}, {0, 1}}) == Approx(4).epsilon(1e-3));
}
