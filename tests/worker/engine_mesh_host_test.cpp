// Meshes over the `host` backend, through shared memory and over TCP: collectives inside blocks beside edges and
// reductions that run on.
#include "tests/worker/engine_support.h"
#include "tests/worker/host_run.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Precision;
using plan::ScheduleKind;

constexpr double kLossTolerance = 1e-5, kMixedTolerance = 2e-2;  // issue 5, row a

}  // namespace

TEST_CASE("meshes over shared memory and TCP train as one rank does") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  worker::TrainSettings given = eager_settings();
  given.steps = 4;
  given.data.validation_steps = 1;
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"cp2 x tp2", {{{6, {16}, {2}, {2}}}, 2}},
      {"pp2, tp2 x dp2 then cp2, zbh1", {{{3, {5, 3}, {2, 2}}, {6, {8}, {1}, {2}}}, 4, ScheduleKind::ZeroBubbleH1}},
      {"interleaved 2 x 2, tp2 and tp1, one credit",
       {.stages = {{0, {8}, {2}}, {0, {8}}},
        .count = 4,
        .schedule = ScheduleKind::Interleaved,
        .part_ends = {1, 4, 5, 6},
        .receive_credits = 1}},
  };
  for (const Precision precision : {Precision::Float32, Precision::BFloat16}) {
    given.precision = precision;
    PlanSpec one{{{6, {8}}}, 4};
    one.precision = precision;
    const TrainingRun whole = train(graph, make_plan(graph, one), given);
    REQUIRE(whole.problems == std::vector<std::string>{});
    const double tolerance = precision == Precision::Float32 ? kLossTolerance : kMixedTolerance;
    for (const bool one_node : {true, false}) {
      for (auto [name, spec] : plans) {
        DYNAMIC_SECTION(name << ", " << plan::to_text(precision) << (one_node ? ", shared memory" : ", TCP")) {
          spec.precision = precision;
          const TrainingRun run = train_over_host(graph, make_plan(graph, spec), given, one_node);
          REQUIRE(run.problems == std::vector<std::string>{});
          REQUIRE(run.losses.size() == whole.losses.size());
          for (std::size_t i = 0; i < run.losses.size(); ++i)
            CHECK(std::abs(run.losses[i] - whole.losses[i]) <= tolerance * whole.losses[i]);
          CHECK(std::abs(run.validation.at(0) - whole.validation.at(0)) <= tolerance * whole.validation.at(0));
        }
      }
    }
  }
}

}  // namespace coxswain::tests
