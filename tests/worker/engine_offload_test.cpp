// Selective recompute and offload: the bits of a run that keeps everything where it is, in less of the device's memory.
#include <algorithm>
#include <fstream>

#include "cost_model/cost_model.h"
#include "cost_model/memory.h"
#include "tests/support/plan_builder.h"
#include "tests/worker/lone_rank.h"
#include "worker/engine/host_memory.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Offload;
using plan::Precision;
using plan::Recompute;
using plan::ScheduleKind;

constexpr std::pair<Recompute, Offload> kChoices[] = {
    {Recompute::Full, Offload::None},          {Recompute::Selective, Offload::None},
    {Recompute::None, Offload::Optimizer},     {Recompute::None, Offload::Activations},
    {Recompute::Full, Offload::Activations},   {Recompute::Selective, Offload::Activations},
    {Recompute::Selective, Offload::Optimizer}};

/// Dropout is on.
worker::TrainSettings short_settings(Precision precision = Precision::Float32) {
  worker::TrainSettings result = eager_settings();
  result.precision = precision;
  result.data.validation_steps = 1;
  result.steps = 3;
  return result;
}

plan::Plan changed(plan::Plan plan, Recompute recompute, Offload offload) {
  for (plan::Stage& stage : plan.stages) {
    std::fill(stage.recompute.begin(), stage.recompute.end(), recompute);
    stage.offload = offload;
  }
  return plan;
}

void check_same(const TrainingRun& run, const TrainingRun& expected) {
  REQUIRE(run.problems == std::vector<std::string>{});
  CHECK(run.losses == expected.losses);
  CHECK(run.grad_norms == expected.grad_norms);
  CHECK(run.validation == expected.validation);
  CHECK(run.parameters == expected.parameters);
}

void check_choices(const model::ModelGraph& graph, const PlanSpec& spec, const worker::TrainSettings& settings) {
  const plan::Plan plain = make_plan(graph, spec);
  REQUIRE(plan::check_order(plain, graph).empty());
  const TrainingRun expected = train(graph, plain, settings);
  REQUIRE(expected.problems == std::vector<std::string>{});
  for (const auto& [recompute, offload] : kChoices) {
    INFO(plan::to_text(recompute) << ", offload " << plan::to_text(offload));
    check_same(train(graph, changed(plain, recompute, offload), settings), expected);
  }
  // Blocks and stages of every kind beside each other.
  plan::Plan mixed = plain;
  for (std::size_t s = 0; s < mixed.stages.size(); ++s) {
    mixed.stages[s].offload = static_cast<Offload>((s + 2) % 3);
    for (std::size_t b = 0; b < mixed.stages[s].recompute.size(); ++b)
      mixed.stages[s].recompute[b] = static_cast<Recompute>((b + s) % 3);
  }
  INFO("mixed");
  check_same(train(graph, mixed, settings), expected);
  CHECK(worker::host_memory_in_use() == Bytes(0));
}

const model::ModelGraph& gpt() {
  static const model::ModelGraph loaded = load_fixture("gpt_four_layers.pt2");
  return loaded;
}

/// Six layers, attention fused.
const model::ModelGraph& llama() {
  static const model::ModelGraph made = make_llama(128);
  return made;
}

std::int64_t num_elements(const model::ModelGraph& graph) {
  std::int64_t total = 0;
  for (const model::Parameter& parameter : graph.parameters) {
    std::int64_t count = 1;
    for (const std::int64_t dim : parameter.dims) count *= dim;
    total += count;
  }
  return total;
}

}  // namespace

TEST_CASE("recomputed, selectively or whole, and offloaded: the bits of a run that does neither") {
  for (const std::string name : {"gpt_four_layers.pt2", "gpt2.pt2", "llama.pt2"}) {
    const model::ModelGraph graph = load_fixture(name);
    for (const Precision precision : {Precision::Float32, Precision::BFloat16, Precision::Float16}) {
      DYNAMIC_SECTION(name << ", " << plan::to_text(precision)) {
        check_choices(graph, {.stages = {{graph.num_blocks(), {8}}}, .count = 2, .precision = precision},
                      short_settings(precision));
      }
    }
  }
}

TEST_CASE("the same in every kind of plan") {
  const std::vector<std::pair<std::string, PlanSpec>> plans = {
      {"replicas, 1f1b", {.stages = {{3, {4, 4}}, {6, {8}}}, .count = 3}},
      {"halves of a backward", {.stages = {{3, {4, 4}}, {6, {8}}}, .count = 3, .schedule = ScheduleKind::ZeroBubbleH2}},
      {"zbv",
       {.stages = {{0, {4}}, {0, {4}}}, .count = 4, .schedule = ScheduleKind::ZeroBubbleV, .part_ends = {2, 3, 5, 6}}},
      {"interleaved, bfloat16",
       {.stages = {{0, {4}}, {0, {4}}},
        .count = 4,
        .schedule = ScheduleKind::Interleaved,
        .precision = Precision::BFloat16,
        .part_ends = {1, 4, 5, 6}}},
      {"ZeRO 1", {.stages = {{6, {4, 3}}}, .count = 2, .zero_stages = {1}}},
      {"ZeRO 2, bfloat16", {.stages = {{6, {4, 3}}}, .count = 2, .precision = Precision::BFloat16, .zero_stages = {2}}},
      {"ZeRO 3", {.stages = {{3, {4, 3}}, {6, {7}}}, .count = 2, .zero_stages = {3, 0}}},
      {"ZeRO 3, halves",
       {.stages = {{6, {4, 3}}}, .count = 2, .schedule = ScheduleKind::ZeroBubbleH1, .zero_stages = {3}}},
      {"tensor 2", {.stages = {{6, {8}, {2}}}, .count = 2}},
      {"tensor 2, bfloat16, halves",
       {.stages = {{3, {4}, {2}}, {6, {4}}},
        .count = 3,
        .schedule = ScheduleKind::ZeroBubbleH1,
        .precision = Precision::BFloat16}},
      {"context 2", {.stages = {{6, {4}, {}, {2}}}, .count = 2}},
      {"tensor 2 x context 2, ZeRO 3", {.stages = {{6, {4}, {2}, {2}}}, .count = 2, .zero_stages = {3}}},
  };
  for (const auto& [name, spec] : plans) {
    DYNAMIC_SECTION(name) { check_choices(gpt(), spec, short_settings(spec.precision)); }
  }
}

TEST_CASE("a mixture of experts, selectively recomputed and offloaded") {
  worker::TrainSettings settings = short_settings();
  settings.data.text = fixture("offloaded_experts.txt");
  settings.data.sequence_length = 6;
  std::ofstream text(settings.data.text);
  for (int i = 0; i < 4000; ++i) text.put(static_cast<char>((i * i + 3 * i) % 31));
  text.close();
  const model::ModelGraph graph = load_fixture("experts.pt2");
  check_choices(graph, {.stages = {{graph.num_blocks(), {4}}}, .count = 2}, settings);
}

TEST_CASE("selective recompute takes memory between that of none and of full", "[memory]") {
  const plan::Plan plain = make_plan(llama(), {.stages = {{llama().num_blocks(), {8}}}, .count = 2});
  const auto peak = [&](Recompute recompute) {
    return measure_rank(llama(), changed(plain, recompute, Offload::None), 0, llama_settings()).peak;
  };
  const std::int64_t none = peak(Recompute::None), selective = peak(Recompute::Selective), full = peak(Recompute::Full);
  CAPTURE(none, selective, full);
  CHECK(full < selective);
  CHECK(selective < none * 4 / 5);
}

TEST_CASE("what is offloaded leaves the device and is on the host", "[memory]") {
  const plan::Plan plain = make_plan(llama(), {.stages = {{llama().num_blocks(), {8}}}, .count = 2});
  const Footprint none = measure_rank(llama(), plain, 0, llama_settings());
  const std::int64_t moments = 8 * num_elements(llama());
  CHECK(worker::host_memory_in_use() == Bytes(0));
  const Footprint optimizer =
      measure_rank(llama(), changed(plain, Recompute::None, Offload::Optimizer), 0, llama_settings());
  CAPTURE(none.persistent, none.peak, optimizer.persistent, optimizer.peak, moments);
  CHECK(none.persistent - optimizer.persistent >= moments);
  CHECK(none.persistent - optimizer.persistent <= moments * 101 / 100);
  CHECK(none.peak - optimizer.peak >= moments);
  CHECK(worker::host_memory_peak().value >= moments);
  const Footprint activations =
      measure_rank(llama(), changed(plain, Recompute::None, Offload::Activations), 0, llama_settings());
  CAPTURE(activations.persistent, activations.peak);
  CHECK(activations.persistent == none.persistent);
  // Of eight blocks two are on the device.
  CHECK(activations.peak - activations.persistent < (none.peak - none.persistent) * 2 / 3);
  CHECK(worker::host_memory_in_use() == Bytes(0));
}

TEST_CASE("under ZeRO each rank's piece of the moments is on its host") {
  PlanSpec spec{.stages = {{llama().num_blocks(), {2, 2}}}, .count = 1, .zero_stages = {1}};
  const plan::Plan plain = make_plan(llama(), spec);
  const std::int64_t half = 4 * num_elements(llama());
  for (const int rank : {0, 1}) {
    const Footprint none = measure_rank(llama(), plain, rank, llama_settings());
    const Footprint offloaded =
        measure_rank(llama(), changed(plain, Recompute::None, Offload::Optimizer), rank, llama_settings());
    CAPTURE(rank, none.persistent, offloaded.persistent, half);
    CHECK(std::abs(none.persistent - offloaded.persistent - half) <= half / 100);
  }
}

TEST_CASE("the cost model's peak is the measured one, recomputed and offloaded", "[memory]") {
  const cluster::ResourceGraph cluster = make_cpu_cluster({8});
  const auto barrier = [] { return collective::Handle{}; };
  const int blocks = llama().num_blocks();
  for (const Precision precision : {Precision::Float32, Precision::BFloat16}) {
    worker::TrainSettings given = llama_settings();
    given.precision = precision;
    given.dropout = false;
    const auto profile = worker::profile_blocks(llama(), {4, 8}, "cpu-0", given, Seconds(0.01), barrier);
    REQUIRE(profile);
    const auto cost = cost_model::make_cost_model(llama(), cluster, &*profile);
    std::vector<double> errors;
    for (const auto& stages :
         {std::vector<StageSpec>{{blocks, {8}}}, std::vector<StageSpec>{{3, {4}}, {blocks, {4}}}}) {
      const plan::Plan plain = make_plan(llama(), {.stages = stages, .count = 4, .precision = precision});
      for (const auto& [recompute, offload] : kChoices) {
        const plan::Plan plan = changed(plain, recompute, offload);
        for (int rank = 0; rank < plan::num_ranks(plan); ++rank) {
          const plan::MemoryParts parts = cost_model::estimate_memory(*cost, plan, rank, 0);
          const auto predicted = static_cast<double>((parts.total() - parts.margin).value);
          const auto measured = static_cast<double>(measure_rank(llama(), plan, rank, given).peak);
          CAPTURE(plan::to_text(precision), plan::to_text(recompute), plan::to_text(offload), rank, predicted,
                  measured);
          errors.push_back(std::abs(predicted / measured - 1));
          CHECK(errors.back() <= 0.10);  // issue 5, row b: 20 %, and a median of 8 %
        }
      }
    }
    std::sort(errors.begin(), errors.end());
    CHECK(errors[errors.size() / 2] <= 0.03);
  }
}

}  // namespace coxswain::tests
