// Experts as transformers 5 exports them by default: grouped kernels, and the same training under every plan.
#include <algorithm>
#include <fstream>

#include "tests/worker/engine_support.h"
#include "worker/engine/group_experts.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::ScheduleKind;

std::ptrdiff_t count_of(const model::ModelGraph& graph, std::string_view target) {
  return std::count_if(graph.ops.begin(), graph.ops.end(), [&](const model::Op& op) { return op.target == target; });
}

worker::TrainSettings settings() {
  worker::TrainSettings given = eager_settings();
  given.data.text = fixture("experts.txt");
  given.data.sequence_length = 6;
  given.steps = 5;
  std::ofstream text(given.data.text);
  for (int i = 0; i < 4000; ++i) text.put(static_cast<char>((i * i + 3 * i) % 31));
  return given;
}

}  // namespace

TEST_CASE("products with chosen experts gather no matrix, others stay") {
  for (const std::string name : {"experts.pt2", "experts_by_rows.pt2"}) {
    const model::ModelGraph graph = load_fixture(name), grouped = worker::group_experts(graph);
    CHECK(count_of(graph, "aten::bmm") == 4);
    CHECK(count_of(grouped, "aten::bmm") == 0);
    CHECK(count_of(grouped, "coxswain::expert_bmm") == 4);
    CHECK(grouped.ops.size() == graph.ops.size());
  }
  const model::ModelGraph llama = load_fixture("llama.pt2");
  CHECK(count_of(worker::group_experts(llama), "coxswain::expert_bmm") == 0);
}

TEST_CASE("a mixture of experts trains alike under every plan") {
  for (const std::string name : {"experts.pt2", "experts_by_rows.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    const int blocks = graph.num_blocks();
    const TrainingRun whole = train(graph, make_plan(graph, {{{blocks, {12}}}}), settings());
    REQUIRE(whole.problems == std::vector<std::string>{});
    const std::vector<std::pair<std::string, PlanSpec>> plans = {
        {"three micro-batches, recompute", {{{blocks, {4}}}, 3, ScheduleKind::OneForwardOneBackward, true}},
        {"unequal replicas", {{{blocks, {7, 5}}}, 1}},
        {"two stages, unequal replicas", {{{2, {4, 2}}, {blocks, {6}}}, 2}},
        {"two stages, split backward", {{{2, {4}}, {blocks, {4}}}, 3, ScheduleKind::ZeroBubbleH1}},
    };
    for (const auto& [plan_name, spec] : plans) {
      DYNAMIC_SECTION(name << ", " << plan_name) {
        const TrainingRun run = train(graph, make_plan(graph, spec), settings());
        REQUIRE(run.problems == std::vector<std::string>{});
        for (std::size_t i = 0; i < whole.losses.size(); ++i)
          CHECK(std::abs(run.losses.at(i) - whole.losses[i]) <= 1e-5 * whole.losses[i]);
        for (const auto& [parameter, values] : whole.parameters) {
          INFO(parameter);
          CHECK(distance(run.parameters.at(parameter), values) <= 1e-4 * norm_of(values) + 1e-6);
        }
      }
    }
  }
}

TEST_CASE("a mixture of experts trains in bfloat16") {
  const model::ModelGraph graph = load_fixture("experts.pt2");
  PlanSpec spec{{{graph.num_blocks(), {12}}}};
  const TrainingRun whole = train(graph, make_plan(graph, spec), settings());
  spec.precision = plan::Precision::BFloat16;
  const TrainingRun half = train(graph, make_plan(graph, spec), settings());
  REQUIRE(half.problems == std::vector<std::string>{});
  for (std::size_t i = 0; i < whole.losses.size(); ++i)
    CHECK(std::abs(half.losses.at(i) - whole.losses[i]) <= 2e-2 * whole.losses[i]);
}

}  // namespace coxswain::tests
