// C54 to C57: what a device of a mesh does and holds, counted by hand as Shoeybi et al. 2019 and Korthikanti et al.
// 2022 lay out a layer.
#include "cost_model/mesh_facts.h"

#include "cost_model/memory.h"
#include "cost_model/mesh_times.h"
#include "cost_model/roofline.h"
#include "model/load.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"
#include "tests/model/raw_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;
using collective::CollectiveKind;
using plan::Precision;

namespace {

constexpr std::int64_t kRows = 8, kWidth = 16, kInner = 64;

/// x + down(gelu(up(x))), twice, behind a projection.
struct Mlp : model::RawGraph {
  Mlp() {
    using model::Dim;
    const std::vector<Dim> stream{batch, Dim(kRows), Dim(kWidth)}, inner{batch, Dim(kRows), Dim(kInner)};
    model::ValueId x = linear("", input("x", stream), parameter("first", {kWidth, kWidth}), stream);
    for (const std::string path : {"h.0", "h.1"}) {
      model::ValueId y = linear(path, x, parameter(path + ".up", {kInner, kWidth}), inner);
      y = unary(path, "aten::gelu", y);
      y = linear(path, y, parameter(path + ".down", {kWidth, kInner}), stream);
      x = binary(path, "aten::add.Tensor", x, y, stream);
    }
    loss(sum("", x));
    REQUIRE(model::finish_graph(graph).has_value());
  }
};

constexpr std::int64_t kTokens = 1024, kHidden = 768;

model::ModelGraph make_gpt2() {
  const JsonObject config{{"model_type", "gpt2"}, {"n_layer", 3},        {"n_head", 12},
                          {"n_embd", kHidden},    {"vocab_size", 50257}, {"n_positions", kTokens}};
  auto graph = model::build_from_config(config, {.sequence_length = kTokens});
  REQUIRE(graph);
  return std::move(*graph);
}

/// Kinds and payloads of a block's transitions that carry a gradient, in order.
std::vector<std::pair<CollectiveKind, std::int64_t>> sent(const MeshFacts& facts, std::int64_t samples) {
  std::vector<std::pair<CollectiveKind, std::int64_t>> all;
  for (const MeshTransition& transition : facts.transitions())
    if (transition.has_gradient)
      all.emplace_back(transition.kind, facts.payload(transition, samples, Precision::Float32).value);
  return all;
}

}  // namespace

TEST_CASE(
    "C54: a device of a tensor axis does its part of an MLP, gathers its input once and scatters its result once") {
  const Mlp mlp;
  const ModelFacts facts(mlp.graph);
  for (const int tensor : {2, 4}) {
    for (const std::int64_t samples : {3, 5, 7}) {
      const MeshFacts* mesh = facts.mesh(2, tensor, 1);
      REQUIRE(mesh != nullptr);
      const model::BlockTotals& own = mesh->local().totals(plan::kBlock, samples);
      const double product = 2.0 * static_cast<double>(samples * kRows * kWidth * kInner);
      CHECK(own.forward_flop.value == 2 * product / tensor);
      CHECK(own.backward_input_flop.value == 2 * product / tensor);
      CHECK(own.backward_weight_flop.value == 2 * product / tensor);
      const std::int64_t stream = 4 * samples * kRows * kWidth, inner = 4 * samples * kRows * kInner;
      CHECK(sent(*mesh, samples) == std::vector<std::pair<CollectiveKind, std::int64_t>>{
                                        {CollectiveKind::AllGather, stream}, {CollectiveKind::ReduceScatter, stream}});
      // Kept: its rows of what comes in, all rows for the first product, its columns before and behind gelu.
      CHECK(own.saved_bytes == Bytes(stream / tensor + stream + 2 * inner / tensor));
      CHECK(own.shared_bytes == Bytes(0));
    }
  }
}

TEST_CASE("C57: parameters are held in parts, as the layout splits them") {
  const Mlp mlp;
  const ModelFacts facts(mlp.graph);
  CHECK(count_persistent(facts, 2, 3, 2).held == 2 * kInner * kWidth / 2);
  CHECK(count_persistent(facts, 2, 3, 4).held == 2 * kInner * kWidth / 4);
  CHECK(count_persistent(facts, 2, 3).held == 2 * kInner * kWidth);
}

TEST_CASE("C55: every transition is waited for, its dual in backward") {
  const Mlp mlp;
  /// Collectives take a second a byte, weighed by kind.
  class ByteCost final : public FakeCost {
   public:
    using FakeCost::FakeCost;
    Seconds estimate_collective(CollectiveKind kind, Bytes payload,
                                const std::vector<plan::DeviceId>& devices) const override {
      CHECK(devices.size() == 2);
      return Seconds((kind == CollectiveKind::AllGather ? 1e-3 : 1.0) * static_cast<double>(payload.value));
    }
  };
  const cluster::ResourceGraph resources =
      make_cluster({make_device("d", 1 << 30)}, {4}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  ByteCost cost(mlp.graph, resources);
  cost.forward.assign(4, 2.0);
  const Mesh mesh{{{0, 0}, {0, 1}}, {}, 0};
  const MeshTicks ticks = estimate_block_on_mesh(cost, {2, 0, 3, Precision::Float32, 2}, mesh);
  const double stream = 4 * 3 * kRows * kWidth;
  const BlockTime alone = cost.estimate_block({2, 0, 3, Precision::Float32, 2});
  CHECK(to_seconds(ticks.forward).value == Approx(alone.forward.value + 1.001 * stream));
  CHECK(to_seconds(ticks.backward).value == Approx(alone.backward.value + 1.001 * stream));
  CHECK(to_seconds(ticks.weight).value == Approx(alone.weight.value));
}

TEST_CASE("C54: a layer of GPT-2 over two devices is half of one, with two gathers and two scatters") {
  const model::ModelGraph graph = make_gpt2();
  const ModelFacts facts(graph);
  const MeshFacts* mesh = facts.mesh(2, 2, 1);
  REQUIRE(mesh != nullptr);
  const std::int64_t samples = 5, stream = 4 * samples * kTokens * kHidden;
  CHECK(sent(*mesh, samples) ==
        std::vector<std::pair<CollectiveKind, std::int64_t>>{{CollectiveKind::AllGather, stream},
                                                             {CollectiveKind::ReduceScatter, stream},
                                                             {CollectiveKind::AllGather, stream},
                                                             {CollectiveKind::ReduceScatter, stream}});
  const model::BlockTotals &whole = facts.totals(2, samples), &own = mesh->local().totals(plan::kBlock, samples);
  CHECK(own.forward_flop.value == whole.forward_flop.value / 2);
  CHECK(own.backward_input_flop.value == whole.backward_input_flop.value / 2);
  CHECK(own.backward_weight_flop.value == whole.backward_weight_flop.value / 2);
  // The two products that are split by columns keep all rows of what goes in, beside the half of them that a norm made
  // and nobody else keeps.
  CHECK(own.saved_bytes.value == (whole.saved_bytes.value - 2 * stream) / 2 + 2 * stream);
  // 12 width^2 in matrices, of vectors the biases of projections that are split by columns (3 + 4 widths); two norms
  // and two more biases are whole.
  CHECK(count_persistent(facts, 2, 3, 2).held == (12 * kHidden * kHidden + 7 * kHidden) / 2 + 6 * kHidden);
}

TEST_CASE("C54: the vocabulary's loss exchanges three numbers a row and keeps one") {
  const model::ModelGraph graph = make_gpt2();
  const ModelFacts facts(graph);
  const int head = graph.num_blocks() - 1;
  const MeshFacts* mesh = facts.mesh(head, 2, 1);
  REQUIRE(mesh != nullptr);
  std::int64_t numbers = 0;
  for (const MeshTransition& transition : mesh->transitions()) {
    if (transition.value >= 0) continue;
    CHECK(transition.kind == CollectiveKind::AllReduce);
    CHECK(!transition.has_gradient);
    numbers += mesh->payload(transition, 2, Precision::BFloat16).value;
  }
  const std::int64_t rows = model::num_elements(mesh->local().graph(), mesh->transitions().back().rows, 2);
  CHECK(numbers == 4 * 3 * rows);
}

TEST_CASE("C57: parts over all positions are the whole, uneven ones too") {
  const model::ModelGraph graph = make_gpt2();
  for (const int tensor : {2, 3, 4}) {
    plan::Stage stage;
    stage.end_block = graph.num_blocks();
    plan::Replica replica;
    replica.tensor = tensor;
    replica.samples = 2;
    replica.devices.resize(static_cast<std::size_t>(tensor));
    std::vector<std::int64_t> sums(graph.parameters.size(), 0), first = sums;
    for (int position = 0; position < tensor; ++position) {
      const auto local = plan::localise_stage(graph, stage, replica, position);
      REQUIRE(local);
      for (std::size_t p = 0; p < sums.size(); ++p) {
        std::int64_t elements = 1;
        for (const std::int64_t dim : local->graph.parameters[p].dims) elements *= dim;
        sums[p] += elements;
        if (position == 0) first[p] = elements;
      }
    }
    const ModelFacts facts(graph);
    for (std::size_t p = 0; p < sums.size(); ++p) {
      INFO(graph.parameters[p].name << " tensor " << tensor);
      const ParameterFacts& whole = facts.parameters()[p];
      CHECK((sums[p] == whole.elements || (sums[p] == tensor * whole.elements && !whole.sharded)));
      CHECK(whole.elements_at(tensor) == first[p]);
    }
  }
}

TEST_CASE("a block by itself is laid out as in a stage, and equal blocks alike") {
  const model::ModelGraph graph = make_gpt2();
  for (const auto& [tensor, context] : {std::pair{2, 1}, {4, 1}, {1, 2}, {2, 2}}) {
    plan::Stage stage;
    stage.end_block = graph.num_blocks();
    plan::Replica replica;
    replica.tensor = tensor;
    replica.context = context;
    replica.samples = 5;
    replica.devices.resize(static_cast<std::size_t>(tensor * context));
    const auto all = plan::localise_stage(graph, stage, replica, 0);
    REQUIRE(all);
    for (int block = 1; block + 1 < graph.num_blocks(); ++block) {
      INFO("block " << block << " tensor " << tensor << " context " << context);
      const auto alone = plan::localise_block(graph, block, tensor, context);
      REQUIRE(alone);
      const model::Block &range = all->graph.blocks[static_cast<std::size_t>(block)],
                         &own = alone->graph.blocks[plan::kBlock];
      REQUIRE(range.end_op - range.first_op == own.end_op - own.first_op);
      for (int op = 0; op < own.end_op - own.first_op; ++op) {
        const model::Op &a = all->graph.ops[static_cast<std::size_t>(range.first_op + op)],
                        &b = alone->graph.ops[static_cast<std::size_t>(own.first_op + op)];
        CHECK(a.target == b.target);
        REQUIRE(a.outputs.size() == b.outputs.size());
        for (std::size_t o = 0; o < a.outputs.size(); ++o)
          if (a.outputs[o] >= 0)
            CHECK(model::value_bytes(all->graph, a.outputs[o], 5) == model::value_bytes(alone->graph, b.outputs[o], 5));
      }
    }
  }
}

TEST_CASE("C56: a ring passes on its part of keys and values and computes with all of them") {
  const model::ModelGraph graph = make_gpt2();
  const ModelFacts facts(graph);
  const std::int64_t samples = 3;
  const MeshFacts* mesh = facts.mesh(2, 1, 2);
  REQUIRE(mesh != nullptr);
  const model::BlockTotals &whole = facts.totals(2, samples), &own = mesh->local().totals(plan::kBlock, samples);
  CHECK(own.forward_flop.value == whole.forward_flop.value / 2);
  if (!mesh->rings().empty()) {
    // Half of the rows, of keys and of values.
    const std::int64_t rows = samples * kTokens / 2;
    CHECK(mesh->ring_bytes(mesh->rings().front(), samples, Precision::Float32) == Bytes(2 * 4 * rows * kHidden));
    CHECK(mesh->ring_bytes(mesh->rings().front(), samples, Precision::BFloat16) == Bytes(2 * 2 * rows * kHidden));
  }
  CHECK(count_persistent(facts, 2, 3, 1).held == 12 * kHidden * kHidden + 13 * kHidden);
}
