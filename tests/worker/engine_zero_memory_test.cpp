// What a rank holds under ZeRO: by the allocator's counters, beside one rank and beside the cost model.
#include <algorithm>

#include "cost_model/cost_model.h"
#include "cost_model/memory.h"
#include "tests/support/plan_builder.h"
#include "tests/worker/lone_rank.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::Precision;
using plan::ScheduleKind;

constexpr int kReplicas = 4;

/// Six layers without tied weights: 4.6 million parameters.
const model::ModelGraph& llama() {
  static const model::ModelGraph made = make_llama(256);
  return made;
}

PlanSpec replicas(int zero, std::int64_t samples, std::int64_t count) {
  return {.stages = {{llama().num_blocks(), std::vector<std::int64_t>(kReplicas, samples)}},
          .count = count,
          .zero_stages = {zero}};
}

/// Elements of the trainable parameters of the block that has most.
std::int64_t largest_block(const model::ModelGraph& graph) {
  const cost_model::ModelFacts facts(graph);
  std::int64_t most = 0;
  for (int block = 0; block < graph.num_blocks(); ++block)
    most = std::max(most, cost_model::count_persistent(facts, block, block + 1).held);
  return most;
}

}  // namespace

TEST_CASE("ZeRO 3 over 4 ranks keeps a quarter, and its peak adds at most the two largest blocks", "[memory]") {
  const model::ModelGraph& graph = llama();
  const plan::Plan single = make_plan(graph, {.stages = {{graph.num_blocks(), {2}}}, .count = 2});
  const plan::Plan whole = make_plan(graph, replicas(0, 2, 2)), pieces = make_plan(graph, replicas(3, 2, 2));
  const Footprint one = measure_rank(graph, single, 0, llama_settings()),
                  all = measure_rank(graph, whole, 1, llama_settings());
  // Of a block its parameters and its gradients are whole for a while, in float32: of both of them what is at work,
  // what is gathered ahead and what is still reduced. By parameters alone the peak adds 2.5 blocks.
  const std::int64_t blocks = 2 * (4 + 4) * largest_block(graph);
  for (int rank = 0; rank < kReplicas; ++rank) {
    const Footprint zero = measure_rank(graph, pieces, rank, llama_settings());
    CAPTURE(rank, one.persistent, zero.persistent, all.peak - all.persistent, zero.peak - zero.persistent, blocks);
    CHECK(static_cast<double>(zero.persistent) <= 0.26 * static_cast<double>(one.persistent));
    // Beyond what the same samples keep and make without ZeRO.
    CHECK(zero.peak - zero.persistent <= all.peak - all.persistent + blocks);
  }
}

TEST_CASE("the cost model's peak is the measured one under ZeRO", "[memory]") {
  const model::ModelGraph& graph = llama();
  const cluster::ResourceGraph cluster = make_cpu_cluster({8});
  const auto barrier = [] { return collective::Handle{}; };
  for (const Precision precision : {Precision::Float32, Precision::BFloat16}) {
    worker::TrainSettings given = llama_settings();
    given.precision = precision;
    given.dropout = false;
    const auto profile = worker::profile_blocks(graph, {2, 4}, "cpu-0", given, Seconds(0.01), barrier);
    REQUIRE(profile);
    const auto cost = cost_model::make_cost_model(graph, cluster, &*profile);
    std::vector<double> errors;
    const auto compare = [&](PlanSpec spec, int rank) {
      spec.precision = precision;
      const plan::Plan plan = make_plan(graph, spec);
      const plan::RankPlace place = plan::place_of(plan, rank);
      const plan::MemoryParts parts = cost_model::estimate_memory(*cost, plan, place.stage, place.replica);
      const auto predicted = static_cast<double>((parts.total() - parts.margin).value);
      const auto measured = static_cast<double>(measure_rank(graph, plan, rank, given).peak);
      CAPTURE(plan::to_text(precision), plan.stages[0].zero_stage, plan.batch.count, plan.stages.size(), measured,
              predicted, parts.parameters.value, parts.gradients.value, parts.optimizer.value, parts.activations.value,
              parts.workspace.value, parts.transfers.value);
      errors.push_back(std::abs(predicted / measured - 1));
      CHECK(errors.back() <= 0.10);  // issue 5, row b: 20 %, and a median of 8 %
    };
    for (const int zero : {0, 1, 2, 3}) {
      compare(replicas(zero, 2, 2), 1);
      PlanSpec recomputed = replicas(zero, 4, 1);
      recomputed.recompute = true;
      compare(recomputed, 2);
      compare({.stages = {{3, {2, 2}}, {graph.num_blocks(), {2, 2}}}, .count = 4, .zero_stages = {zero, zero}}, 0);
      compare({.stages = {{3, {2, 2}}, {graph.num_blocks(), {2, 2}}}, .count = 4, .zero_stages = {zero, zero}}, 3);
    }
    std::sort(errors.begin(), errors.end());
    CHECK(errors[errors.size() / 2] <= 0.03);
  }
}

}  // namespace coxswain::tests
