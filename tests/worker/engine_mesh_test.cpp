// Meshes of several devices train what one rank trains, dropout on. The layouts are those of plan/layout, whatever they
// split.
#include <algorithm>

#include "tests/worker/engine_support.h"
#include "tests/worker/megatron_by_hand.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Precision;
using plan::ScheduleKind;

constexpr double kLossTolerance = 1e-5, kMixedTolerance = 2e-2;  // issue 5, row a
constexpr double kParameterTolerance = 1e-4, kParameterFloor = 1e-6;

const model::ModelGraph& graph() {
  static const model::ModelGraph loaded = load_fixture("gpt_four_layers.pt2");
  return loaded;
}

worker::TrainSettings settings() {
  worker::TrainSettings result = eager_settings();
  result.data.validation_steps = 2;
  result.steps = 6;
  return result;
}

const TrainingRun& one_rank() {
  static const TrainingRun run = train(graph(), make_plan(graph(), {{{6, {32}}}}), settings());
  return run;
}

void check_equal(const TrainingRun& run, const TrainingRun& expected, double tolerance = kLossTolerance) {
  REQUIRE(run.problems == std::vector<std::string>{});
  REQUIRE(expected.problems == std::vector<std::string>{});
  REQUIRE(run.losses.size() == expected.losses.size());
  for (std::size_t i = 0; i < run.losses.size(); ++i) {
    CHECK(std::abs(run.losses[i] - expected.losses[i]) <= tolerance * expected.losses[i]);
    CHECK(std::abs(run.grad_norms[i] - expected.grad_norms[i]) <= 10 * tolerance * expected.grad_norms[i]);
  }
  REQUIRE(run.validation.size() == expected.validation.size());
  for (std::size_t i = 0; i < run.validation.size(); ++i)
    CHECK(std::abs(run.validation[i] - expected.validation[i]) <= tolerance * expected.validation[i]);
  REQUIRE(run.parameters.size() == expected.parameters.size());
  if (tolerance > kLossTolerance) return;
  for (const auto& [name, values] : expected.parameters) {
    INFO(name);
    CHECK(distance(run.parameters.at(name), values) <= kParameterTolerance * norm_of(values) + kParameterFloor);
  }
}

}  // namespace

TEST_CASE("plans with meshes of several devices equal one rank") {
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"tp2", {{{6, {8}, {2}}}, 4}},
      {"tp2, recompute", {{{6, {16}, {2}}}, 2, ScheduleKind::OneForwardOneBackward, true}},
      {"tp2 x dp2, unequal samples", {{{6, {10, 6}, {2, 2}}}, 2}},
      {"tp4", {{{6, {16}, {4}}}, 2}},
      {"tp2 beside tp1 in one stage", {{{6, {10, 6}, {2, 1}}}, 2}},
      {"pp2, tp2 then tp1", {{{3, {8}, {2}}, {6, {8}}}, 4}},
      {"pp2, tp1 then tp2", {{{3, {8}}, {6, {8}, {2}}}, 4}},
      {"pp2, tp2 both, zbh1", {{{3, {8}, {2}}, {6, {8}, {2}}}, 4, ScheduleKind::ZeroBubbleH1}},
      {"pp2, tp2 x dp2 then tp3, gpipe", {{{3, {5, 3}, {2, 2}}, {6, {8}, {3}}}, 4, ScheduleKind::GPipe}},
      {"pp2, different meshes in both stages", {{{3, {5, 3}, {1, 2}}, {6, {2, 6}, {3, 1}}}, 4}},
      {"tp2, zbh2, some blocks recompute",
       {.stages = {{6, {8}, {2}}}, .count = 4, .schedule = ScheduleKind::ZeroBubbleH2, .recompute_blocks = {1, 2, 5}}},
      {"interleaved 2 x 2, tp2",
       {.stages = {{0, {8}, {2}}, {0, {8}, {2}}},
        .count = 4,
        .schedule = ScheduleKind::Interleaved,
        .part_ends = {1, 4, 5, 6}}},
      {"zbv of 2 stages, tp2 and tp1",
       {.stages = {{0, {4}, {2}}, {0, {4}}},
        .count = 8,
        .schedule = ScheduleKind::ZeroBubbleV,
        .part_ends = {2, 3, 5, 6}}},
  };
  for (const auto& [name, spec] : plans) {
    DYNAMIC_SECTION(name) {
      const plan::Plan plan = make_plan(graph(), spec);
      REQUIRE(plan::check_order(plan, graph()).empty());
      check_equal(train(graph(), plan, settings()), one_rank());
    }
  }
}

TEST_CASE("meshes in bfloat16 equal one rank in bfloat16") {
  worker::TrainSettings given = settings();
  given.precision = Precision::BFloat16;
  PlanSpec spec{{{6, {8}}}, 4};
  spec.precision = Precision::BFloat16;
  const TrainingRun whole = train(graph(), make_plan(graph(), spec), given);
  for (const std::vector<StageSpec>& stages :
       {std::vector<StageSpec>{{6, {8}, {2}}}, std::vector<StageSpec>{{3, {8}, {2}}, {6, {4, 4}}}}) {
    spec.stages = stages;
    check_equal(train(graph(), make_plan(graph(), spec), given), whole, kMixedTolerance);
    check_equal(train(graph(), make_plan(graph(), spec), given, MegatronByHand(true)), whole, kMixedTolerance);
  }
}

TEST_CASE("parameters cut by hand equal one rank: column and row parallel, uneven, dropout of parts") {
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"tp2", {{{6, {8}, {2}}}, 4}},
      {"tp3, recompute", {{{6, {16}, {3}}}, 2, ScheduleKind::OneForwardOneBackward, true}},
      {"tp4", {{{6, {16}, {4}}}, 2}},
      {"tp2 x dp2, unequal samples", {{{6, {10, 6}, {2, 2}}}, 2}},
      {"tp2 beside tp1 and tp3 in one stage", {{{6, {6, 6, 4}, {2, 1, 3}}}, 2}},
      {"tp2, zbh1", {{{6, {8}, {2}}}, 4, ScheduleKind::ZeroBubbleH1}},
      {"tp3, zbh2, some blocks recompute",
       {.stages = {{6, {8}, {3}}}, .count = 4, .schedule = ScheduleKind::ZeroBubbleH2, .recompute_blocks = {1, 2, 5}}},
  };
  for (const bool sequence : {false, true}) {
    for (const auto& [name, spec] : plans) {
      DYNAMIC_SECTION(name << (sequence ? ", scattered along the sequence" : "")) {
        check_equal(train(graph(), make_plan(graph(), spec), settings(), MegatronByHand(sequence)), one_rank());
      }
    }
  }
}

TEST_CASE("parts of weights, read or drawn, are those of the whole") {
  worker::TrainSettings given = settings();
  given.steps = 0;
  given.data.validation_steps = 1;
  model::ModelGraph drawn = graph();
  for (model::Parameter& parameter : drawn.parameters) parameter.weights.reset();
  for (const model::ModelGraph* model : {&graph(), static_cast<const model::ModelGraph*>(&drawn)}) {
    const TrainingRun whole = train(*model, make_plan(*model, {{{6, {8}}}}), given);
    const TrainingRun parts = train(*model, make_plan(*model, {{{6, {8}, {3}}}}), given, MegatronByHand(false));
    REQUIRE(whole.problems == std::vector<std::string>{});
    REQUIRE(parts.problems == std::vector<std::string>{});
    CHECK(parts.parameters == whole.parameters);
  }
}

TEST_CASE("sequences split over a context axis equal one rank") {
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"cp2", {{{6, {8}, {1}, {2}}}, 4}},
      {"cp3, recompute", {{{6, {16}, {1}, {3}}}, 2, ScheduleKind::OneForwardOneBackward, true}},
      {"cp2 x dp2, unequal samples", {{{6, {10, 6}, {1, 1}, {2, 2}}}, 2}},
      {"cp2 x tp2", {{{6, {16}, {2}, {2}}}, 2}},
      {"cp2 x tp2 beside tp2 in one stage", {{{6, {10, 6}, {2, 2}, {2, 1}}}, 2}},
      {"pp2, cp2 then tp2, zbh1", {{{3, {8}, {1}, {2}}, {6, {8}, {2}}}, 4, ScheduleKind::ZeroBubbleH1}},
      {"pp2, cp2 then cp3", {{{3, {8}, {1}, {2}}, {6, {8}, {1}, {3}}}, 4}},
      {"pp2, cp3 then cp2 x tp2, unequal samples", {{{3, {8}, {1}, {3}}, {6, {5, 3}, {2, 1}, {2, 1}}}, 4}},
  };
  for (const auto& [name, spec] : plans) {
    DYNAMIC_SECTION(name) {
      const plan::Plan plan = make_plan(graph(), spec);
      REQUIRE(plan::check_order(plan, graph()).empty());
      check_equal(train(graph(), plan, settings()), one_rank());
    }
  }
}

TEST_CASE("Hugging Face models on meshes equal one rank: tied weights, fused projection, fewer key heads") {
  const std::vector<std::pair<std::string, std::vector<StageSpec>>> meshes = {
      {"tp2", {{-1, {4}, {2}}}},
      {"tp4", {{-1, {4}, {4}}}},
      {"cp2", {{-1, {4}, {1}, {2}}}},
      {"pp2, tp2 then tp1 and cp2", {{2, {4}, {2}}, {-1, {2, 2}, {1, 1}, {1, 2}}}},
  };
  for (const std::string name : {"gpt2.pt2", "llama.pt2"}) {
    const model::ModelGraph model = load_fixture(name);
    worker::TrainSettings given = eager_settings();
    given.dropout = false;  // attention keys with a bias drift on rounding noise, so few steps
    given.steps = 3;
    const int blocks = model.num_blocks();
    const TrainingRun whole = train(model, make_plan(model, {{{blocks, {8}}}}), given);
    for (const auto& [mesh, stages] : meshes) {
      DYNAMIC_SECTION(name << ", " << mesh) {
        PlanSpec spec{stages, 2};
        spec.stages.back().end_block = blocks;
        const TrainingRun split = train(model, make_plan(model, spec), given);
        REQUIRE(split.problems == std::vector<std::string>{});
        for (std::size_t i = 0; i < whole.losses.size(); ++i) {
          CHECK(std::abs(split.losses[i] - whole.losses[i]) <= kLossTolerance * whole.losses[i]);
          CHECK(std::abs(split.grad_norms[i] - whole.grad_norms[i]) <= 1e-4 * whole.grad_norms[i]);
        }
      }
    }
  }
}

}  // namespace coxswain::tests
