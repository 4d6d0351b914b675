// Random plans: valid, the same for the same number, and of every kind.
#include "bench/support/random_plans.h"

#include <algorithm>
#include <set>

#include "model/load.h"
#include "tests/support/mixture_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::bench;

namespace {

model::ModelGraph gpt() {
  auto graph = model::build_from_config(JsonObject{{"model_type", "gpt2"},
                                                   {"n_layer", 6},
                                                   {"n_head", 4},
                                                   {"n_embd", 16},
                                                   {"n_positions", 16},
                                                   {"vocab_size", 64}},
                                        {.sequence_length = 16});
  REQUIRE(graph);
  return std::move(*graph);
}

std::set<std::string> kinds_of(const plan::Plan& plan) {
  std::set<std::string> kinds{std::string(plan::to_text(plan.schedule)), std::string(plan::to_text(plan.precision)),
                              std::to_string(plan::num_ranks(plan)) + " ranks"};
  if (plan.batch.count > 1) kinds.insert("micro-batches");
  if (plan.stages.size() == 8) kinds.insert("8 stages");
  for (const plan::Stage& stage : plan.stages) {
    for (const plan::Recompute recompute : stage.recompute)
      kinds.insert("recompute " + std::string(plan::to_text(recompute)));
    if (stage.zero_stage > 0) kinds.insert("zero " + std::to_string(stage.zero_stage));
    if (stage.offload != plan::Offload::None) kinds.insert("offload " + std::string(plan::to_text(stage.offload)));
    for (const plan::Replica& replica : stage.replicas) {
      if (replica.samples != stage.replicas[0].samples) kinds.insert("unequal samples");
      if (replica.tensor > 1) kinds.insert("tensor");
      if (replica.expert > 1) kinds.insert("expert " + std::to_string(replica.expert));
      if (replica.context > 1) kinds.insert("context");
    }
  }
  return kinds;
}

std::set<std::string> draw_many(int count, const plan::Capabilities& capabilities,
                                const model::ModelGraph& graph = gpt()) {
  const auto cluster = make_flat_cluster(8);
  RandomPlanOptions options;
  options.capabilities = capabilities;
  std::set<std::string> kinds;
  for (int i = 0; i < count; ++i) {
    const plan::Plan plan = draw_plan(graph, cluster, options, static_cast<std::uint64_t>(i));
    CHECK(plan::validate(plan, graph, cluster, capabilities).empty());
    kinds.merge(kinds_of(plan));
  }
  return kinds;
}

}  // namespace

TEST_CASE("a plan depends on its seed and number alone") {
  const model::ModelGraph graph = gpt();
  const auto cluster = make_flat_cluster(8);
  RandomPlanOptions options;
  const plan::Plan fifth = draw_plan(graph, cluster, options, 5);
  CHECK(draw_plan(graph, cluster, options, 6) != fifth);
  CHECK(draw_plan(graph, cluster, options, 5) == fifth);
  options.seed = 2;
  CHECK(draw_plan(graph, cluster, options, 5) != fifth);
}

TEST_CASE("what the worker runs is mixed") {
  // Meshes leave few devices for stages: pipelines of single devices are drawn beside them.
  auto kinds = draw_many(200, plan::kRunnable);
  kinds.merge(draw_many(200, plan::kUnasked));
  for (const char* kind : {"gpipe", "1f1b", "interleaved", "zbh1", "zbh2", "zbv", "float32", "bfloat16", "1 ranks",
                           "8 ranks", "8 stages", "micro-batches", "recompute none", "recompute full",
                           "recompute selective", "unequal samples", "offload optimizer", "offload activations"}) {
    INFO(kind);
    CHECK(kinds.contains(kind));
  }
}

TEST_CASE("experts are spread where a model has some") {
  const auto kinds = draw_many(100, plan::kRunnable, make_mixture_graph());
  CHECK(kinds.contains("expert 2"));
  CHECK(kinds.contains("expert 3"));
  CHECK_FALSE(draw_many(50, plan::kRunnable).contains("expert 2"));
}

TEST_CASE("what can be planned is mixed") {
  const auto kinds = draw_many(150, plan::kPlannable);
  for (const char* kind : {"tensor", "context", "zero 1", "zero 2", "zero 3", "offload optimizer",
                           "offload activations", "recompute selective"}) {
    INFO(kind);
    CHECK(kinds.contains(kind));
  }
}
