// Selective recompute and offload: the bits of a run that keeps everything where it is, in less of the device's memory.
#include <algorithm>

#include "cost_model/cost_model.h"
#include "tests/worker/engine_support.h"
#include "worker/engine/caching_allocator.h"
#include "worker/engine/host_memory.h"

#undef CHECK
#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Offload;
using plan::Recompute;
using plan::ScheduleKind;

worker::TrainSettings short_settings() {
  worker::TrainSettings result = eager_settings();
  result.steps = 4;
  return result;
}

plan::Plan changed(plan::Plan plan, Recompute recompute, Offload offload) {
  for (plan::Stage& stage : plan.stages) {
    std::fill(stage.recompute.begin(), stage.recompute.end(), recompute);
    stage.offload = offload;
  }
  return plan;
}

void check_same_bits(const model::ModelGraph& graph, const PlanSpec& spec) {
  const plan::Plan plain = make_plan(graph, spec);
  const TrainingRun expected = train(graph, plain, short_settings());
  REQUIRE(expected.problems == std::vector<std::string>{});
  for (const auto& [recompute, offload] : {std::pair{Recompute::Full, Offload::None},
                                           {Recompute::Selective, Offload::None},
                                           {Recompute::None, Offload::Optimizer},
                                           {Recompute::None, Offload::Activations},
                                           {Recompute::Full, Offload::Activations},
                                           {Recompute::Selective, Offload::Activations}}) {
    INFO(plan::to_text(recompute) << ", offload " << plan::to_text(offload));
    const TrainingRun run = train(graph, changed(plain, recompute, offload), short_settings());
    REQUIRE(run.problems == std::vector<std::string>{});
    CHECK(run.losses == expected.losses);
    CHECK(run.grad_norms == expected.grad_norms);
    CHECK(run.parameters == expected.parameters);
  }
}

/// Allocator's bytes after the forward of one micro-batch on one rank, above those before it; its peak in the backward.
struct Use {
  std::int64_t kept = 0, peak = 0, state = 0;
};
Use measure(const model::ModelGraph& graph, const plan::Plan& plan) {
  const Bytes before = worker::memory_in_use();
  auto engine = worker::make_engine({&graph, &plan, 0, short_settings(), {}});
  REQUIRE(engine.has_value());
  Use use;
  use.state = (worker::memory_in_use() - before).value;
  REQUIRE((*engine)->begin_step(1).has_value());
  const plan::RankProgram program = plan::make_rank_program(plan, graph, 0);
  for (const plan::Action& action : program.actions) {
    if (action.kind != plan::ActionKind::CountLoss && action.kind != plan::ActionKind::Forward &&
        action.kind != plan::ActionKind::Backward)
      continue;
    const Bytes start = worker::memory_in_use();
    worker::reset_memory_peak();
    REQUIRE((*engine)->start(action).has_value());
    if (action.kind == plan::ActionKind::Forward) use.kept = (worker::memory_in_use() - start).value;
    if (action.kind == plan::ActionKind::Backward) use.peak = (worker::memory_peak() - before).value;
  }
  return use;
}

}  // namespace

TEST_CASE("recomputed, selectively or whole, and offloaded: the bits of a run that does neither") {
  for (const std::string name : {"gpt_four_layers.pt2", "gpt2.pt2", "llama.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    const int blocks = graph.num_blocks();
    for (const plan::Precision precision : {plan::Precision::Float32, plan::Precision::BFloat16}) {
      DYNAMIC_SECTION(name << ", " << plan::to_text(precision)) {
        check_same_bits(graph, {.stages = {{blocks, {8}}}, .count = 2, .precision = precision});
      }
    }
  }
}

TEST_CASE("the same with a backward in two halves over two stages") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  for (const ScheduleKind schedule : {ScheduleKind::ZeroBubbleH1, ScheduleKind::OneForwardOneBackward}) {
    DYNAMIC_SECTION(plan::to_text(schedule)) {
      check_same_bits(graph, {.stages = {{3, {4, 4}}, {6, {8}}}, .count = 3, .schedule = schedule});
    }
  }
}

TEST_CASE("selective recompute keeps what the cost model says, between none and full") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  const plan::Plan plain = make_plan(graph, {.stages = {{6, {32}}}});
  const Use none = measure(graph, plain),
            selective = measure(graph, changed(plain, Recompute::Selective, Offload::None)),
            full = measure(graph, changed(plain, Recompute::Full, Offload::None));
  CHECK(full.kept < selective.kept);
  CHECK(selective.kept < none.kept * 4 / 5);
  CHECK(selective.peak < none.peak);
}

TEST_CASE("what is offloaded leaves the device and is on the host") {
  const model::ModelGraph graph = load_fixture("gpt_four_layers.pt2");
  const plan::Plan plain = make_plan(graph, {.stages = {{6, {32}}}});
  const Use none = measure(graph, plain);
  std::int64_t parameters = 0;
  for (const model::Parameter& parameter : graph.parameters) {
    std::int64_t count = 1;
    for (const std::int64_t dim : parameter.dims) count *= dim;
    parameters += count;
  }
  const Bytes before = worker::host_memory_in_use();
  const Use optimizer = measure(graph, changed(plain, Recompute::None, Offload::Optimizer));
  CHECK(none.state - optimizer.state >= 8 * parameters);
  CHECK(worker::host_memory_peak().value >= before.value + 8 * parameters);
  const Use activations = measure(graph, changed(plain, Recompute::None, Offload::Activations));
  CHECK(activations.kept < none.kept / 2);
  CHECK(activations.peak < none.peak);
  CHECK(worker::host_memory_in_use() == before);
}

}  // namespace coxswain::tests
