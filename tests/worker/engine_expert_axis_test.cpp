// Experts spread over replicas: what they train is what one rank trains, whoever holds them and however few tokens
// come.
#include <algorithm>
#include <fstream>
#include <numeric>

#include "plan/experts.h"
#include "tests/support/mixture_graph.h"
#include "tests/worker/engine_support.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::ScheduleKind;

// Of issue 5, row a; gradient norms and parameters as for other axes.
constexpr double kLoss = 1e-5, kMixedLoss = 2e-2, kNorm = 1e-4, kParameter = 1e-4, kParameterFloor = 1e-6;

worker::TrainSettings settings() {
  worker::TrainSettings given = eager_settings();
  given.data.text = fixture("expert_axis.txt");
  given.data.sequence_length = 6;
  given.data.validation_steps = 2;
  given.steps = 5;
  std::ofstream text(given.data.text);
  for (int i = 0; i < 4000; ++i) text.put(static_cast<char>((i * i + 3 * i) % 31));
  return given;
}

void check_equal(const TrainingRun& run, const TrainingRun& whole) {
  REQUIRE(whole.problems == std::vector<std::string>{});
  REQUIRE(run.problems == std::vector<std::string>{});
  REQUIRE(run.losses.size() == whole.losses.size());
  for (std::size_t i = 0; i < whole.losses.size(); ++i) {
    CHECK(std::abs(run.losses[i] - whole.losses[i]) <= kLoss * whole.losses[i]);
    CHECK(std::abs(run.grad_norms[i] - whole.grad_norms[i]) <= kNorm * whole.grad_norms[i]);
  }
  CHECK(run.expert_tokens == whole.expert_tokens);
  REQUIRE(run.validation.size() == whole.validation.size());
  for (std::size_t i = 0; i < whole.validation.size(); ++i)
    CHECK(std::abs(run.validation[i] - whole.validation[i]) <= kLoss * whole.validation[i]);
  REQUIRE(run.parameters.size() == whole.parameters.size());
  for (const auto& [name, values] : whole.parameters) {
    INFO(name);
    CHECK(distance(run.parameters.at(name), values) <= kParameter * norm_of(values) + kParameterFloor);
  }
}

StageSpec spread(int end_block, std::vector<std::int64_t> samples, int expert) {
  StageSpec spec{end_block, std::move(samples)};
  spec.expert = expert;
  return spec;
}

plan::Plan checked_plan(const model::ModelGraph& graph, const PlanSpec& spec) {
  plan::Plan plan = make_plan(graph, spec);
  REQUIRE(plan::check_order(plan, graph).empty());
  return plan;
}

}  // namespace

TEST_CASE("experts spread over replicas train what one rank trains") {
  // 5 experts, of which each token has 2, in both layouts; the second has biases.
  for (const std::string name : {"experts.pt2", "experts_by_rows.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    const int blocks = graph.num_blocks();
    const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {12}}}}), settings());
    const std::vector<std::pair<std::string, PlanSpec>> plans = {
        {"2 of 2 replicas", {{spread(blocks, {6, 6}, 2)}}},
        {"2 of 2, unequal samples, 2 micro-batches", {{spread(blocks, {5, 1}, 2)}, 2}},
        {"2 of 4 replicas", {{spread(blocks, {3, 3, 3, 3}, 2)}}},
        {"2 of 4, unequal samples, recompute",
         {{spread(blocks, {1, 2, 2, 1}, 2)}, 2, ScheduleKind::OneForwardOneBackward, true}},
        {"4 of 4, one sample each", {{spread(blocks, {1, 1, 1, 1}, 4)}, 3}},
        {"2 of 2 in the first stage", {{spread(2, {3, 3}, 2), {blocks, {6}}}, 2}},
        {"2 of 4, then 3 of 3", {{spread(2, {2, 2, 1, 1}, 2), spread(blocks, {2, 3, 1}, 3)}, 2}},
        {"2 of 2, split backward", {{spread(2, {2, 2}, 2), spread(blocks, {1, 3}, 2)}, 3, ScheduleKind::ZeroBubbleH1}},
        {"2 of 2 with ZeRO 2", {.stages = {spread(blocks, {3, 3}, 2)}, .count = 2, .zero_stages = {2}}},
        {"3 of 3 with ZeRO 3", {.stages = {spread(blocks, {2, 3, 1}, 3)}, .count = 2, .zero_stages = {3}}},
    };
    for (const auto& [plan_name, spec] : plans) {
      DYNAMIC_SECTION(name << ", " << plan_name) {
        check_equal(train(graph, checked_plan(graph, spec), settings()), whole);
      }
    }
  }
}

TEST_CASE("experts spread over replicas of meshes train what one rank trains") {
  for (const std::string name : {"experts.pt2", "experts_by_rows.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    const int blocks = graph.num_blocks();
    const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {12}}}}), settings());
    const auto meshes = [&](int end, const std::vector<std::int64_t>& samples, int expert, int tensor, int context) {
      StageSpec spec = spread(end, samples, expert);
      spec.tensor.assign(samples.size(), tensor);
      spec.context.assign(samples.size(), context);
      return spec;
    };
    const std::vector<std::pair<std::string, PlanSpec>> plans = {
        {"2 of 2, tensor 2", {{meshes(blocks, {4, 2}, 2, 2, 1)}, 2}},
        {"2 of 2, context 2", {{meshes(blocks, {4, 2}, 2, 1, 2)}, 2}},
        {"2 of 4, tensor 2, recompute",
         {{meshes(blocks, {1, 2, 1, 2}, 2, 2, 1)}, 2, ScheduleKind::OneForwardOneBackward, true}},
        {"2 of 4, context 2", {{meshes(blocks, {3, 3, 4, 2}, 2, 1, 2)}}},
        {"2 of 2, tensor 2, then 2 of 2, split backward",
         {{meshes(2, {2, 2}, 2, 2, 1), spread(blocks, {1, 3}, 2)}, 3, ScheduleKind::ZeroBubbleH1}},
        {"2 of 2, tensor 2 x context 2", {{meshes(blocks, {3, 3}, 2, 2, 2)}, 2}},
    };
    for (const auto& [plan_name, spec] : plans) {
      DYNAMIC_SECTION(name << ", " << plan_name) {
        check_equal(train(graph, checked_plan(graph, spec), settings()), whole);
      }
    }
  }
}

TEST_CASE("rows of experts are counted once, whatever cuts, repeats or moves them") {
  const model::ModelGraph graph = load_fixture("experts.pt2");
  const int blocks = graph.num_blocks();
  const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {12}}}}), settings());
  REQUIRE(whole.expert_tokens.size() == 5);
  // 2 layers, 5 experts; every one of 12 samples has 6 tokens, which choose 2 experts each.
  for (const auto& tokens : whole.expert_tokens) {
    REQUIRE(tokens.size() == 10);
    CHECK(std::accumulate(tokens.begin(), tokens.begin() + 5, std::int64_t{0}) == 144);
    CHECK(std::accumulate(tokens.begin() + 5, tokens.end(), std::int64_t{0}) == 144);
  }
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"data parallel, 2 micro-batches", {{{blocks, {4, 2}}}, 2}},
      {"tensor 2 x context 2, recompute", {{{blocks, {6}, {2}, {2}}}, 2, ScheduleKind::GPipe, true}},
      {"two stages, split backward", {{{2, {4}}, {blocks, {4}}}, 3, ScheduleKind::ZeroBubbleH1}},
  };
  for (const auto& [name, spec] : plans) {
    INFO(name);
    const TrainingRun run = train(graph, checked_plan(graph, spec), settings());
    CHECK(run.problems == std::vector<std::string>{});
    CHECK(run.expert_tokens == whole.expert_tokens);
  }
}

TEST_CASE("routers' losses are those of the whole batch, whoever holds its samples") {
  // A product of two means over all tokens, at the model's end; coefficient 0.3 x 6 experts.
  model::ModelGraph graph = make_mixture_graph(0.3);
  graph.initializer_range = 0.5;  // routers that choose unevenly
  REQUIRE(graph.loss.size() == 2);
  const int blocks = graph.num_blocks();
  worker::TrainSettings given = settings();
  given.data.sequence_length = 8;
  const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {12}}}}), given);
  const auto meshes = [&](const std::vector<std::int64_t>& samples, int tensor, int context) {
    StageSpec spec = spread(blocks, samples, static_cast<int>(samples.size()));
    spec.tensor.assign(samples.size(), tensor);
    spec.context.assign(samples.size(), context);
    return spec;
  };
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"2 of 2, unequal samples", {{spread(blocks, {9, 3}, 2)}}},
      {"4 of 4, recompute", {{spread(blocks, {5, 1, 2, 4}, 4)}, 1, ScheduleKind::GPipe, true}},
      {"1, then 3 of 3, split backward", {{{2, {12}}, spread(blocks, {2, 6, 4}, 3)}, 1, ScheduleKind::ZeroBubbleH1}},
      {"2 of 4, then 2 of 2", {{spread(3, {3, 3, 4, 2}, 2), spread(blocks, {5, 7}, 2)}}},
      {"2 of 2 with ZeRO 3", {.stages = {spread(blocks, {7, 5}, 2)}, .zero_stages = {3}}},
      {"2 of 2, tensor 2", {{meshes({8, 4}, 2, 1)}}},
      {"2 of 2, context 2", {{meshes({8, 4}, 1, 2)}}},
      {"2 of 2, tensor 2 x context 2", {{meshes({5, 7}, 2, 2)}}},
      {"one replica, tensor 2 x context 2", {{meshes({12}, 2, 2)}}},
  };
  for (const auto& [name, spec] : plans) {
    DYNAMIC_SECTION(name) { check_equal(train(graph, checked_plan(graph, spec), given), whole); }
  }
}

TEST_CASE("without the sum over those who hold the same experts their copies part") {
  const model::ModelGraph graph = load_fixture("experts.pt2");
  plan::Plan plan = make_plan(graph, {{spread(graph.num_blocks(), {3, 3, 3, 3}, 2)}});
  std::size_t erased = 0;
  for (plan::Role& role : plan.roles)
    erased += std::erase_if(role.actions, [](const auto& a) { return a.kind == plan::ActionKind::ReduceExperts; });
  REQUIRE(erased > 0);
  CHECK_FALSE(train(graph, plan, settings()).problems.empty());
}

TEST_CASE("experts spread over replicas in bfloat16") {
  const model::ModelGraph graph = load_fixture("experts_by_rows.pt2");
  PlanSpec spec{{{graph.num_blocks(), {12}}}};
  spec.precision = plan::Precision::BFloat16;
  const TrainingRun whole = train(graph, make_plan(graph, spec), settings());
  spec.stages = {spread(graph.num_blocks(), {4, 4, 2, 2}, 2)};
  const TrainingRun parts = train(graph, checked_plan(graph, spec), settings());
  REQUIRE(whole.problems == std::vector<std::string>{});
  REQUIRE(parts.problems == std::vector<std::string>{});
  for (std::size_t i = 0; i < whole.losses.size(); ++i)
    CHECK(std::abs(parts.losses[i] - whole.losses[i]) <= kMixedLoss * whole.losses[i]);
}

TEST_CASE("replicas whose experts get no token take part all the same") {
  model::ModelGraph graph = load_fixture("experts.pt2");
  int routers = 0;
  // All experts are as likely: every token goes to the same ones, and most replicas get no row.
  for (model::Parameter& parameter : graph.parameters) {
    parameter.weights.reset();
    if (!parameter.name.ends_with("gate.weight")) continue;
    parameter.init = "zero";
    ++routers;
  }
  REQUIRE(routers == 2);
  worker::TrainSettings given = settings();
  given.steps = 2;
  const TrainingRun whole = train(graph, make_plan(graph, {{{graph.num_blocks(), {12}}}}), given);
  // Of each of 2 layers, in the first step: 12 samples of 6 tokens have the same 2 of 5 experts, whichever.
  REQUIRE(whole.expert_tokens.size() == 2);
  std::vector<std::int64_t> tokens = whole.expert_tokens.front();
  REQUIRE(tokens.size() == 10);
  std::sort(tokens.begin(), tokens.begin() + 5);
  std::sort(tokens.begin() + 5, tokens.end());
  CHECK(tokens == std::vector<std::int64_t>{0, 0, 0, 72, 72, 0, 0, 0, 72, 72});
  for (const auto& stage : {spread(graph.num_blocks(), {3, 4, 2, 3}, 4), spread(graph.num_blocks(), {3, 4, 2, 3}, 2)})
    check_equal(train(graph, checked_plan(graph, {{stage}}), given), whole);
}

TEST_CASE("each replica holds its experts alone, drawn or read") {
  const model::ModelGraph read = load_fixture("experts.pt2");
  model::ModelGraph drawn = read;
  for (model::Parameter& parameter : drawn.parameters) parameter.weights.reset();
  worker::TrainSettings given = settings();
  given.steps = 0;
  for (const model::ModelGraph* graph : {&read, static_cast<const model::ModelGraph*>(&drawn)}) {
    const std::vector<std::int64_t> counts = plan::expert_counts(*graph);
    const plan::Plan plan = make_plan(*graph, {{spread(graph->num_blocks(), {6, 6}, 2)}});
    const TrainingRun whole = train(*graph, make_plan(*graph, {{{graph->num_blocks(), {12}}}}), given);
    const TrainingRun parts = train(*graph, plan, given);
    REQUIRE(parts.problems == std::vector<std::string>{});
    CHECK(parts.parameters == whole.parameters);
    CHECK(std::count(counts.begin(), counts.end(), 5) == 4);
  }
}

}  // namespace coxswain::tests
