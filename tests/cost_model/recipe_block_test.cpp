// C40-C47, C49 on numbers counted by hand: 10 tokens of 100 elements, 40,000 weights in attention, 200,000 in the MLP.
#include "tests/cost_model/make_recipe.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;
using collective::CollectiveKind;

namespace {

RecipeBlock price(const TransformerShape& shape, const Recipe& recipe,
                  const RecipeMachine& machine = make_recipe_machine(),
                  const Efficiency& efficiency = make_plain_efficiency()) {
  return estimate_recipe_block(shape, recipe, machine, efficiency);
}

// 2 x 10 tokens x 240,000 weights at 1000 FLOP/s, and the causal half of 4 x 10 x 10 x 100.
constexpr double kMatmuls = 4800, kScores = 20;

}  // namespace

TEST_CASE("C40, C41: a block is its products and the causal half of attention", "[recipe_block_test]") {
  const RecipeBlock block = price(make_small_shape(), {});
  CHECK(block.forward.value == Approx(kMatmuls + kScores));
  CHECK(block.backward.value == Approx(2 * kMatmuls + 2.5 * kScores));
  CHECK(block.head.value == Approx(6 * 10 * 100 * 10 / 1000.0));
  CHECK(block.dense_parameters == Approx(240'000));
  CHECK(block.expert_parameters == 0);
}

TEST_CASE("C40: half the rate doubles products, a gated MLP has three", "[recipe_block_test]") {
  Efficiency slow = make_plain_efficiency();
  slow.matmul_16bit = 0.5;
  CHECK(price(make_small_shape(), {}, make_recipe_machine(), slow).forward.value == Approx(2 * kMatmuls + kScores));
  TransformerShape gated = make_small_shape();
  gated.mlp_matrices = 3;
  CHECK(price(gated, {}).forward.value == Approx(kMatmuls + 2000 + kScores));
}

TEST_CASE("C40: 8 bits run at their own rate, the head at that of 16", "[recipe_block_test]") {
  Recipe recipe;
  recipe.format = NumberFormat::Bits8;
  RecipeMachine machine = make_recipe_machine();
  machine.best_8bit = FlopPerSecond(4000);
  const RecipeBlock block = price(make_small_shape(), recipe, machine);
  CHECK(block.forward.value == Approx(kMatmuls / 4 + kScores));
  CHECK(block.head.value == Approx(60));
  machine.best_8bit = FlopPerSecond(0);  // a device without them
  CHECK(price(make_small_shape(), recipe, machine).forward.value == Approx(kMatmuls + kScores));
}

TEST_CASE("C41: explicit scores take both halves and move the matrix", "[recipe_block_test]") {
  Recipe recipe;
  recipe.attention = AttentionKernel::ExplicitScores;
  CHECK(price(make_small_shape(), recipe).forward.value == Approx(kMatmuls + 40 / 0.6));
  recipe.attention = AttentionKernel::FlashSecond;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.attention_second = 0.5;
  efficiency.attention_older = 0.1;
  RecipeMachine machine = make_recipe_machine();
  CHECK(price(make_small_shape(), recipe, machine, efficiency).forward.value == Approx(kMatmuls + 2 * kScores));
  machine.after_ampere = true;
  CHECK(price(make_small_shape(), recipe, machine, efficiency).forward.value == Approx(kMatmuls + 20 * kScores));
}

TEST_CASE("C42: bytes of operands and passes over the stream", "[recipe_block_test]") {
  RecipeMachine machine = make_recipe_machine();
  machine.device.peak_bfloat16.value = FlopPerSecond(1e30);
  machine.device.memory_bandwidth.value = BytesPerSecond(1000);
  // Attention: weights 40,000, in 200 + 100, out 300 a token; MLP: weights 200,000, in 1100, out 1100 a token.
  const double operands = 2 * (40'000 + 10 * 600) + 2 * (200'000 + 10 * 2200);
  const double stream = 2 * 10 * 100;
  CHECK(price(make_small_shape(), {}, machine).forward.value == Approx((operands + (14 + 1) * stream) / 1000));
  Recipe recipe;
  recipe.fused_norm = false;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.norm_passes = 100;
  CHECK(price(make_small_shape(), recipe, machine, efficiency).forward.value ==
        Approx((operands + (14 + 1 + 100) * stream) / 1000));
}

TEST_CASE("C43: a host slower than the device sets the time", "[recipe_block_test]") {
  Efficiency efficiency = make_plain_efficiency();
  efficiency.host_seconds = 1e6;
  const RecipeBlock block = price(make_small_shape(), {}, make_recipe_machine(), efficiency);
  CHECK(block.forward.value == Approx(1e6));
  CHECK(block.backward.value == Approx(1.5e6));
  Recipe captured;
  captured.captured = true;
  CHECK(price(make_small_shape(), captured, make_recipe_machine(), efficiency).forward.value == Approx(0.2e6));
}

TEST_CASE("C44: two all-reduces of the stream a pass, exposed where nothing hides them", "[recipe_block_test]") {
  Recipe recipe;
  recipe.tensor = 2;
  // Each of two ranks sends the 2000 bytes once over 100 bytes a second.
  const RecipeBlock block = price(make_small_shape(), recipe);
  CHECK(block.tensor.value == Approx(2 * 20).epsilon(1e-5));
  CHECK(block.forward.value == Approx((kMatmuls + kScores) / 2 + 40).epsilon(1e-5));
  CHECK(block.dense_parameters == Approx(120'000));
  recipe.overlaps_tensor = recipe.sequence_parallel = true;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.tensor_exposed = 0.1;
  CHECK(price(make_small_shape(), recipe, make_recipe_machine(), efficiency).tensor.value == Approx(4).epsilon(1e-5));
}

TEST_CASE("C45: keys and values of the other ranks pass once", "[recipe_block_test]") {
  Recipe recipe;
  recipe.context = 2;  // 5 tokens each; 2 x 5 x 100 x 2 bytes over 100 bytes a second, of which 0.3 show
  const RecipeBlock block = price(make_small_shape(), recipe);
  CHECK(block.forward.value == Approx((kMatmuls + kScores) / 2 + 0.3 * 20));
  CHECK(block.backward.value == Approx((2 * kMatmuls + 2.5 * kScores) / 2 + 2 * 0.3 * 20));
}

TEST_CASE("C46: tokens go through their experts at the grouped rate", "[recipe_block_test]") {
  TransformerShape shape = make_small_shape();
  shape.experts = 4;
  shape.experts_per_token = 2;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.matmul_experts = 0.1;
  const RecipeBlock block = price(shape, {}, make_recipe_machine(), efficiency);
  // Attention 2 x 10 x 40,000; experts 2 x 20 x 200,000 at a tenth of the rate.
  CHECK(block.forward.value == Approx(800 + 80'000 + kScores));
  CHECK(block.dense_parameters == Approx(40'000));
  CHECK(block.expert_parameters == Approx(800'000));
  shape.dense_blocks = shape.num_blocks;  // no block has experts
  shape.dense_ffn_hidden = shape.ffn_hidden;
  CHECK(price(shape, {}).forward.value == Approx(kMatmuls + kScores));
}

TEST_CASE("C47: what stays in the domain goes over its link, the rest over the network", "[recipe_block_test]") {
  TransformerShape shape = make_small_shape();
  shape.experts = 4;
  shape.experts_per_token = 1;
  Recipe recipe;
  const double alone = price(shape, recipe).forward.value;
  recipe.expert = 4;
  // 2000 bytes: a quarter stays, a quarter to the neighbour at 100, half away at 10; and back.
  CHECK(price(shape, recipe).forward.value - alone == Approx(2 * (5 + 100)));
  recipe.overlaps_experts = true;
  CHECK(price(shape, recipe).forward.value - alone == Approx(0.4 * 2 * (5 + 100)));
}

TEST_CASE("C11 again: full recompute adds a forward, other kinds their part", "[recipe_block_test]") {
  const RecipeBlock plain = price(make_small_shape(), {});
  const auto added = [&](RecipeRecompute kind, double fraction) {
    Recipe recipe;
    recipe.recompute = kind;
    recipe.recomputed_fraction = fraction;
    return price(make_small_shape(), recipe).backward.value - plain.backward.value;
  };
  CHECK(added(RecipeRecompute::Full, 1) == Approx(kMatmuls + kScores));
  CHECK(added(RecipeRecompute::Full, 0.1) == Approx(0.1 * (kMatmuls + kScores)));
  CHECK(added(RecipeRecompute::Attention, 1) == Approx(kScores));
  CHECK(added(RecipeRecompute::Alternate, 1) == Approx(0.5 * (kMatmuls + kScores)));
}

TEST_CASE("frozen weights need no gradient of their own", "[recipe_block_test]") {
  Recipe recipe;
  recipe.frozen_weights = true;
  CHECK(price(make_small_shape(), recipe).backward.value == Approx(kMatmuls + 2.5 * kScores));
}

TEST_CASE("C49: a ring runs at the domain's rate or at that of its members' network cards", "[recipe_block_test]") {
  RecipeMachine machine = make_recipe_machine();
  const Efficiency efficiency = make_plain_efficiency();
  const auto gather = [&](double ranks, double near) {
    return estimate_domain_ring(CollectiveKind::AllGather, 6400, ranks, near, machine, efficiency).value;
  };
  CHECK(gather(1, 1) == 0);
  CHECK(gather(10, 10) == Approx(57.6));   // 5760 of 6400 bytes at 100; slices are whole cache lines
  CHECK(gather(10, 1) == Approx(576));     // at one card's 10
  CHECK(gather(10, 5) == Approx(115.2));   // five cards
  CHECK(gather(10, 100) == Approx(57.6));  // more neighbours than ranks
  machine.node_link.latency.value = Seconds(1);
  machine.network.latency.value = Seconds(11);
  CHECK(gather(10, 10) == Approx(57.6 + 9));
  CHECK(gather(10, 5) == Approx(115.2 + 9 * (11 + 4) / 5.0));  // of five hops one is far
  machine.network_known = false;
  Efficiency half = efficiency;
  half.unknown_network = 0.5;
  CHECK(estimate_domain_ring(CollectiveKind::AllGather, 6400, 10, 1, machine, half).value == Approx(1152 + 9 * 11));
}
