#include "plan/layout/divide_experts.h"

#include <algorithm>

#include "tests/support/mixture_graph.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

plan::Stage whole_stage(const model::ModelGraph& graph, int replicas) {
  plan::Stage stage;
  stage.end_block = graph.num_blocks();
  for (int r = 0; r < replicas; ++r) stage.replicas.push_back({{{0, r}}, 1, 1, replicas, 3});
  return stage;
}

std::vector<std::string> targets_of(const model::ModelGraph& graph, std::string_view prefix) {
  std::vector<std::string> targets;
  for (const model::Op& op : graph.ops)
    if (op.target.starts_with(prefix)) targets.push_back(op.target.substr(prefix.size()));
  return targets;
}

}  // namespace

TEST_CASE("each replica holds its rows of the tables, and rows travel there and back once a mixture") {
  const model::ModelGraph graph = make_mixture_graph();
  const plan::Stage stage = whole_stage(graph, 4);
  std::int64_t held = 0;
  std::vector<std::string> targets;
  for (int place = 0; place < 4; ++place) {
    const auto local = plan::localise_stage(graph, stage, stage.replicas.front(), 0, {4, place});
    REQUIRE(local);
    CHECK(targets_of(local->graph, "coxswain::") ==
          std::vector<std::string>{"expert_route", "expert_indices", "expert_dispatch", "expert_combine",
                                   "expert_route", "expert_indices", "expert_dispatch", "expert_combine"});
    // All replicas have the same operators.
    if (place == 0) targets = targets_of(local->graph, "");
    CHECK(targets_of(local->graph, "") == targets);
    CHECK(local->graph.ops.size() == graph.ops.size() + 8);
    CHECK(local->origin.size() == local->graph.ops.size());
    CHECK(local->cuts.size() == local->graph.values.size());
    for (std::size_t p = 0; p < graph.parameters.size(); ++p) {
      const auto& cuts = local->cuts[local->graph.parameters[p].value];
      if (graph.parameters[p].dims.size() < 3) {
        CHECK(cuts.empty());
        CHECK(local->graph.parameters[p].dims == graph.parameters[p].dims);
        continue;
      }
      // 6 experts over 4: 2, 2, 1, 1.
      REQUIRE(cuts.size() == 1);
      const plan::Cut::Run run = cuts.front().runs.front();
      CHECK(run == plan::Cut::Run{place < 2 ? 2 * place : 2 + place, place < 2 ? 2 : 1});
      CHECK(local->graph.parameters[p].dims.front() == run.size);
      held += run.size;
    }
    // Every value has the producer that writes it, and blocks go on without gaps.
    model::OpId next = 0;
    for (const model::Block& block : local->graph.blocks) {
      CHECK(block.first_op == next);
      next = block.end_op;
    }
    CHECK(next == static_cast<model::OpId>(local->graph.ops.size()));
    for (std::size_t id = 0; id < local->graph.ops.size(); ++id)
      for (const model::ValueId v : local->graph.ops[id].outputs)
        if (v >= 0) CHECK(local->graph.values[v].producer == static_cast<model::OpId>(id));
  }
  CHECK(held == 4 * 6);
}

TEST_CASE("without an expert axis, and in blocks of other stages, nothing travels") {
  const model::ModelGraph graph = make_mixture_graph();
  plan::Stage stage = whole_stage(graph, 2);
  const auto whole = plan::localise_stage(graph, stage, stage.replicas.front(), 0);
  REQUIRE(whole);
  CHECK(targets_of(whole->graph, "coxswain::").empty());
  stage.end_block = 2;
  const auto first = plan::localise_stage(graph, stage, stage.replicas.front(), 0, {2, 1});
  REQUIRE(first);
  CHECK(targets_of(first->graph, "coxswain::").size() == 4);
}

}  // namespace coxswain::tests
