// C48, C50-C52: blocks to a step. A block of make_small_shape takes 4820 s forward and 9650 s backward, the head 60 s.
#include "tests/cost_model/make_recipe.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

constexpr double kBoth = 4820 + 9650, kHead = 60;

RecipeTime price(const TransformerShape& shape, const Recipe& recipe,
                 const RecipeMachine& machine = make_recipe_machine(),
                 const Efficiency& efficiency = make_plain_efficiency()) {
  const auto time = estimate_recipe(shape, recipe, machine, efficiency);
  REQUIRE(time.has_value());
  return *time;
}

/// Slices of a collective are whole cache lines: up to 63 bytes more.
Approx lines(double value) { return Approx(value).epsilon(2e-4); }

RecipeMachine machine_with_free_links() {
  RecipeMachine machine = make_recipe_machine();
  machine.node_link.bandwidth.value = machine.network.bandwidth.value = BytesPerSecond(1e30);
  return machine;
}

TransformerShape shape_of(double blocks) {
  TransformerShape shape = make_small_shape();
  shape.num_blocks = blocks;
  return shape;
}

}  // namespace

TEST_CASE("C48: one device takes every block and the head for each micro-batch", "[recipe_time_test]") {
  Recipe recipe;
  recipe.num_micro_batches = 10;
  const RecipeTime time = price(shape_of(3), recipe);
  CHECK(time.stage.value == Approx(3 * kBoth + kHead));
  CHECK(time.bubble.value == 0);
  CHECK(time.step.value == Approx(10 * (3 * kBoth + kHead)));
}

TEST_CASE("C48: the busiest stage paces, the bubble is (pp - 1) / chunks of the mean", "[recipe_time_test]") {
  Recipe recipe;
  recipe.pipeline = 4;
  recipe.num_micro_batches = 100;
  RecipeTime time = price(shape_of(8), recipe, machine_with_free_links());
  CHECK(time.stage.value == Approx(2 * kBoth + kHead));
  CHECK(time.bubble.value == Approx(3 * (8 * kBoth + kHead) / 4));
  recipe.chunks = 2;
  time = price(shape_of(8), recipe, machine_with_free_links());
  CHECK(time.stage.value == Approx(2 * kBoth + kHead));
  CHECK(time.bubble.value == Approx(3 * (8 * kBoth + kHead) / 4 / 2));
}

TEST_CASE("C48: blocks that are missing are missing at the ends", "[recipe_time_test]") {
  Recipe recipe;
  recipe.pipeline = 4;
  // 2 2 2 2 less one at each end: the last stage has one block and the head.
  CHECK(price(shape_of(6), recipe, machine_with_free_links()).stage.value == Approx(2 * kBoth));
  // 2 2 2 2 less one: at the end.
  CHECK(price(shape_of(7), recipe, machine_with_free_links()).stage.value == Approx(2 * kBoth));
}

TEST_CASE("C48: zero-bubble schedules leave a third, or nothing", "[recipe_time_test]") {
  Recipe recipe;
  recipe.pipeline = 4;
  const double whole = price(shape_of(8), recipe, machine_with_free_links()).bubble.value;
  recipe.schedule = RecipeSchedule::ZeroBubbleFirst;
  CHECK(price(shape_of(8), recipe, machine_with_free_links()).bubble.value == Approx(whole / 3));
  recipe.schedule = RecipeSchedule::ZeroBubbleSecond;
  CHECK(price(shape_of(8), recipe, machine_with_free_links()).bubble.value == 0);
}

TEST_CASE("C48: a message each way shows by half", "[recipe_time_test]") {
  Recipe recipe;
  recipe.pipeline = 2;  // one domain of two devices: 2000 bytes at 100
  CHECK(price(shape_of(2), recipe).stage.value == Approx(kBoth + kHead + 2 * (0.5 * 20 + 3e-5)).epsilon(1e-12));
}

TEST_CASE("C50: a gather that is longer than the pass paces it", "[recipe_time_test]") {
  Recipe recipe;
  recipe.data = 2;
  recipe.zero_stage = 3;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.gather_contention = 0;
  RecipeMachine machine = make_recipe_machine();
  // 240,000 parameters: half of 480,000 bytes arrives at 100 bytes a second; gradients twice that.
  CHECK(price(shape_of(1), recipe, machine, efficiency).stage.value == Approx(4820 + 9650 + kHead));
  machine.node_link.bandwidth.value = BytesPerSecond(10);
  CHECK(price(shape_of(1), recipe, machine, efficiency).stage.value == Approx(24'000 + 72'000 + kHead));
  efficiency.gather_contention = 0.1;
  CHECK(price(shape_of(1), recipe, machine, efficiency).stage.value == Approx(24'482 + 72'965 + kHead));
  recipe.zero_stage = 2;  // parameters stay, gradients are reduced in each backward pass
  CHECK(price(shape_of(1), recipe, machine, efficiency).stage.value == Approx(4820 + 48'965 + kHead));
  recipe.narrow_gradients = true;
  CHECK(price(shape_of(1), recipe, machine, efficiency).stage.value == Approx(4820 + 24'965 + kHead));
}

TEST_CASE("C51: gradients wait for the end unless the passes hide them", "[recipe_time_test]") {
  Recipe recipe;
  recipe.data = 2;
  // 241,000 parameters with the table: an all-reduce over two sends 4 bytes of each once.
  CHECK(price(shape_of(1), recipe).gradients.value == Approx(9640));
  recipe.zero_stage = 1;  // reduce-scatter of 4 bytes and gather of 2, half of each sent
  CHECK(price(shape_of(1), recipe).gradients.value == lines(4820 + 2410));
  recipe.overlaps_gradients = true;
  Efficiency efficiency = make_plain_efficiency();
  efficiency.gradient_overlap = 0.1;  // of 14,530 s
  efficiency.gradient_contention = 0;
  CHECK(price(shape_of(1), recipe, make_recipe_machine(), efficiency).gradients.value == lines(7230 - 1453));
  efficiency.gradient_overlap = 1;
  efficiency.gradient_contention = 0.1;
  CHECK(price(shape_of(1), recipe, make_recipe_machine(), efficiency).gradients.value == lines(723));
}

TEST_CASE("C51: replicas of an expert are as far apart as its group is wide", "[recipe_time_test]") {
  TransformerShape shape = shape_of(1);
  shape.experts = 2;
  shape.experts_per_token = 1;
  Recipe recipe;
  recipe.data = 4;
  recipe.expert = 2;
  recipe.zero_stage = 1;
  // Attention and table: 41,000 parameters over a ring of 4 with pairs in a domain (two cards: 20 bytes a second);
  // one expert of 200,000: two replicas, in different domains (one card: 10).
  const double dense = 0.75 * 41'000 * 6 / 20, expert = 0.5 * 200'000 * 6 / 10;
  CHECK(price(shape, recipe).gradients.value == lines(dense + expert));
}

TEST_CASE("C52: 30 bytes of each parameter that the device owns, and the step's own time", "[recipe_time_test]") {
  RecipeMachine machine = machine_with_free_links();
  machine.device.memory_bandwidth.value = BytesPerSecond(100);
  Recipe recipe;
  recipe.data = 10;
  CHECK(price(shape_of(1), recipe, machine).update.value == Approx(241'000 * 30 / 100.0));
  recipe.zero_stage = 1;
  CHECK(price(shape_of(1), recipe, machine).update.value == Approx(24'100 * 30 / 100.0));
  Efficiency efficiency = make_plain_efficiency();
  efficiency.step_seconds = 1e9;
  CHECK(price(shape_of(1), recipe, machine, efficiency).step.value ==
        Approx(1e9 + price(shape_of(1), recipe, machine).step.value));
}

TEST_CASE("frozen weights have neither reductions nor an update", "[recipe_time_test]") {
  Recipe recipe;
  recipe.data = 2;
  recipe.frozen_weights = true;
  const RecipeTime time = price(shape_of(1), recipe);
  CHECK(time.gradients.value == 0);
  CHECK(time.update.value == 0);
}

TEST_CASE("what is not positive is told, all of it", "[recipe_time_test]") {
  TransformerShape shape = shape_of(0);
  Recipe recipe;
  recipe.tensor = -1;
  RecipeMachine machine = make_recipe_machine();
  machine.network.bandwidth.value = BytesPerSecond(0);
  const auto time = estimate_recipe(shape, recipe, machine, make_plain_efficiency());
  REQUIRE_FALSE(time.has_value());
  CHECK(time.error().code == ErrorCode::InvalidArgument);
  REQUIRE(time.error().details.size() == 3);
  CHECK(time.error().details[0].path == "blocks");
  CHECK(time.error().details[1].path == "tensor");
  CHECK(time.error().details[2].path == "network");
}
