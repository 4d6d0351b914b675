// ZeRO 1, 2 and 3: every plan trains what one rank trains, on every schedule, in float32 and bfloat16; what a rank
// keeps.
#include <algorithm>

#include "tests/worker/engine_support.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Precision;
using plan::ScheduleKind;

// Bounds on the difference of losses and parameters that sums in another order may make (issue 5, row a; issue 3, e).
constexpr double kLossTolerance = 1e-5, kBFloat16Tolerance = 2e-2;
constexpr double kParameterTolerance = 1e-4, kParameterFloor = 1e-6;

const model::ModelGraph& gpt() {
  static const model::ModelGraph loaded = load_fixture("gpt_four_layers.pt2");
  return loaded;
}

worker::TrainSettings settings() {
  worker::TrainSettings result = eager_settings();
  result.steps = 8;
  result.data.validation_steps = 1;
  return result;
}

const TrainingRun& one_rank() {
  static const TrainingRun run = train(gpt(), make_plan(gpt(), {{{6, {32}}}}), settings());
  return run;
}

void check_losses(const std::vector<double>& losses, const std::vector<double>& expected, double tolerance) {
  REQUIRE(losses.size() == expected.size());
  for (std::size_t i = 0; i < losses.size(); ++i)
    CHECK(std::abs(losses[i] - expected[i]) <= tolerance * std::abs(expected[i]));
}

void check_equal(const TrainingRun& run, const TrainingRun& expected) {
  REQUIRE(run.problems == std::vector<std::string>{});
  check_losses(run.losses, expected.losses, kLossTolerance);
  check_losses(run.grad_norms, expected.grad_norms, 1e-4);
  check_losses(run.validation, expected.validation, kLossTolerance);
  REQUIRE(run.parameters.size() == expected.parameters.size());
  for (const auto& [name, values] : expected.parameters) {
    INFO(name);
    CHECK(distance(run.parameters.at(name), values) <= kParameterTolerance * norm_of(values) + kParameterFloor);
  }
}

struct NamedSpec {
  std::string name;
  PlanSpec spec;
};

std::vector<NamedSpec> specs(int zero) {
  return {
      {"dp2", {.stages = {{6, {16, 16}}}, .zero_stages = {zero}}},
      {"dp3, unequal samples, two micro-batches",
       {.stages = {{6, {8, 5, 3}}}, .count = 2, .schedule = ScheduleKind::GPipe, .zero_stages = {zero}}},
      {"dp2 x pp2, unequal samples that do not meet, recompute",
       {.stages = {{4, {10, 6}}, {6, {3, 13}}}, .count = 2, .recompute = true, .zero_stages = {zero, zero}}},
      {"one stage of two has replicas, one bucket",
       {.stages = {{3, {8}}, {6, {5, 3}}}, .count = 4, .bucket_bytes = 1 << 30, .zero_stages = {zero, zero}}},
      {"zbh1, some blocks recompute",
       {.stages = {{3, {3, 5}}, {6, {4, 4}}},
        .count = 4,
        .schedule = ScheduleKind::ZeroBubbleH1,
        .recompute_blocks = {1, 4},
        .zero_stages = {zero, zero}}},
      {"zbh2, one credit, stages that differ",
       {.stages = {{4, {3, 1}}, {6, {2, 2}}},
        .count = 8,
        .schedule = ScheduleKind::ZeroBubbleH2,
        .receive_credits = 1,
        .zero_stages = {zero, 0}}},
      {"interleaved 2 x 3",
       {.stages = {{0, {3, 5}}, {0, {4, 4}}},
        .count = 4,
        .schedule = ScheduleKind::Interleaved,
        .part_ends = {1, 2, 3, 4, 5, 6},
        .zero_stages = {zero, zero}}},
      {"zbv, recompute",
       {.stages = {{0, {5, 3}}, {0, {1, 4, 3}}},
        .count = 4,
        .schedule = ScheduleKind::ZeroBubbleV,
        .recompute = true,
        .part_ends = {1, 3, 4, 6},
        .zero_stages = {zero, zero}}},
  };
}

void check_specs(int zero) {
  for (const NamedSpec& one : specs(zero)) {
    DYNAMIC_SECTION("ZeRO " << zero << ", " << one.name) {
      const plan::Plan plan = make_plan(gpt(), one.spec);
      REQUIRE(plan::check_order(plan, gpt()).empty());
      check_equal(train(gpt(), plan, settings()), one_rank());
    }
  }
}

}  // namespace

TEST_CASE("ZeRO 1 equals one rank") { check_specs(1); }
TEST_CASE("ZeRO 2 equals one rank") { check_specs(2); }
TEST_CASE("ZeRO 3 equals one rank") { check_specs(3); }

TEST_CASE("ZeRO changes no loss of the same replicas by more than sums in another order do") {
  const PlanSpec plain{.stages = {{6, {5, 3}}}, .count = 4};
  const TrainingRun whole = train(gpt(), make_plan(gpt(), plain), settings());
  for (const int zero : {1, 2, 3}) {
    PlanSpec spec = plain;
    spec.zero_stages = {zero};
    check_equal(train(gpt(), make_plan(gpt(), spec), settings()), whole);
  }
}

TEST_CASE("ZeRO on meshes equals one rank: replicas of a tensor position share its part out") {
  for (const int zero : {1, 2, 3}) {
    const std::vector<NamedSpec> plans = {
        {"tp2 x dp2, unequal samples", {.stages = {{6, {10, 6}, {2, 2}}}, .count = 2, .zero_stages = {zero}}},
        {"pp2, tp2 x dp2 then dp2, zbh1",
         {.stages = {{3, {5, 3}, {2, 2}}, {6, {4, 4}}},
          .count = 4,
          .schedule = ScheduleKind::ZeroBubbleH1,
          .zero_stages = {zero, zero}}},
        {"tp2 beside tp1 in one stage, which nothing can be shared out in",
         {.stages = {{6, {10, 6}, {2, 1}}}, .count = 2, .zero_stages = {zero}}},
    };
    for (const NamedSpec& one : plans) {
      DYNAMIC_SECTION("ZeRO " << zero << ", " << one.name) {
        const plan::Plan plan = make_plan(gpt(), one.spec);
        REQUIRE(plan::check_order(plan, gpt()).empty());
        check_equal(train(gpt(), plan, settings()), one_rank());
      }
    }
  }
}

TEST_CASE("bfloat16 under ZeRO equals one rank, masters and copies in pieces") {
  worker::TrainSettings given = settings();
  given.steps = 5;
  const auto run = [&](PlanSpec spec) {
    spec.precision = Precision::BFloat16;
    TrainingRun result = train(gpt(), make_plan(gpt(), spec), given);
    REQUIRE(result.problems == std::vector<std::string>{});
    return result;
  };
  const TrainingRun whole = run({{{6, {8}}}, 4});
  for (const int zero : {1, 2, 3}) {
    DYNAMIC_SECTION("ZeRO " << zero) {
      // The same kernels on the same samples differ only by float32 sums.
      const TrainingRun even = run({.stages = {{6, {8, 8}}}, .count = 2, .zero_stages = {zero}});
      check_losses(even.losses, whole.losses, kLossTolerance);
      const TrainingRun uneven = run({.stages = {{3, {5, 3}}, {6, {2, 6}}},
                                      .count = 4,
                                      .schedule = ScheduleKind::ZeroBubbleH1,
                                      .zero_stages = {zero, zero}});
      check_losses(uneven.losses, whole.losses, kBFloat16Tolerance);
    }
  }
}

TEST_CASE("parameters that several blocks or stages use under ZeRO equal one rank") {
  for (const std::string name : {"gpt2.pt2", "llama.pt2", "gpt_shared_layers.pt2"}) {
    const model::ModelGraph model = load_fixture(name);
    worker::TrainSettings given = eager_settings();
    given.dropout = false;  // attention keys with a bias drift on rounding noise, so few steps
    given.steps = 4;
    const int blocks = model.num_blocks();
    const TrainingRun whole = train(model, make_plan(model, {{{blocks, {8}}}}), given);
    REQUIRE(whole.problems == std::vector<std::string>{});
    for (const int zero : {1, 2, 3}) {
      DYNAMIC_SECTION(name << ", ZeRO " << zero) {
        const TrainingRun one =
            train(model, make_plan(model, {.stages = {{blocks, {3, 1}}}, .count = 2, .zero_stages = {zero}}), given);
        REQUIRE(one.problems == std::vector<std::string>{});
        check_losses(one.losses, whole.losses, kLossTolerance);
        const TrainingRun two = train(
            model,
            make_plan(model, {.stages = {{2, {2, 2}}, {blocks, {1, 3}}}, .count = 2, .zero_stages = {zero, zero}}),
            given);
        REQUIRE(two.problems == std::vector<std::string>{});
        check_losses(two.losses, whole.losses, kLossTolerance);
      }
    }
  }
}

}  // namespace coxswain::tests
