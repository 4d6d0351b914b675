// What a router's loss becomes where replicas hold its experts together: two means, each weighted by this replica's
// part of the samples and added up over all of them, before they are multiplied. That the numbers are those of one rank
// is proved by training (tests/worker/engine_expert_axis_test.cpp).
#include "plan/layout/complete_sums.h"

#include <algorithm>

#include "tests/support/mixture_graph.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

plan::Stage stage_of(const model::ModelGraph& graph, const std::vector<std::int64_t>& samples, int first_block = 0) {
  plan::Stage stage;
  stage.first_block = first_block;
  stage.end_block = graph.num_blocks();
  std::int64_t device = 0;
  for (const std::int64_t count : samples)
    stage.replicas.push_back({{{0, device++}}, 1, 1, static_cast<int>(samples.size()), count});
  return stage;
}

std::vector<const model::Op*> ops_named(const model::ModelGraph& graph, const std::string& target) {
  std::vector<const model::Op*> found;
  for (const model::Op& op : graph.ops)
    if (op.target == target) found.push_back(&op);
  return found;
}

}  // namespace

TEST_CASE("means that a coupled operator multiplies are put together over the replicas before it") {
  const model::ModelGraph graph = make_mixture_graph(0.1);
  REQUIRE(graph.coupled.size() == 1);
  const plan::Stage stage = stage_of(graph, {3, 1});
  for (const auto& [index, share] : {std::pair{0, 0.75}, {1, 0.25}}) {
    const auto local =
        plan::localise_stage(graph, stage, stage.replicas[static_cast<std::size_t>(index)], 0, {2, index});
    REQUIRE(local);
    const auto sums = ops_named(local->graph, "coxswain::all_reduce");
    REQUIRE(sums.size() == 2);
    std::vector<model::ValueId> made;
    for (const model::Op* sum : sums) {
      CHECK(std::get<model::Dim>(sum->arguments[1].value) == model::Dim(static_cast<std::int64_t>(plan::kExpertAxis)));
      const model::ValueId weighted = std::get<model::ValueRef>(sum->arguments[0].value).id;
      const model::Op& scale = local->graph.ops[static_cast<std::size_t>(local->graph.values[weighted].producer)];
      CHECK(scale.target == "aten::mul.Scalar");
      CHECK(std::get<double>(scale.arguments[1].value) == share);
      made.push_back(sum->outputs.front());
    }
    // The operator itself reads those two and nothing else.
    const auto coupled = std::find(local->origin.begin(), local->origin.end(), graph.coupled.front().op);
    REQUIRE(coupled != local->origin.end());
    const model::Op& product = local->graph.ops[static_cast<std::size_t>(coupled - local->origin.begin())];
    std::vector<model::ValueId> read;
    for (const model::Argument& argument : product.arguments)
      if (const auto* value = std::get_if<model::ValueRef>(&argument.value)) read.push_back(value->id);
    CHECK(std::is_permutation(read.begin(), read.end(), made.begin(), made.end()));
    CHECK(local->origin.size() == local->graph.ops.size());
    CHECK(local->cuts.size() == local->graph.values.size());
  }
}

TEST_CASE("sums stay as they are where the stage has no coupled operator, and on one replica") {
  const model::ModelGraph graph = make_mixture_graph(0.1), plain = make_mixture_graph();
  const plan::Stage alone = stage_of(graph, {4}), two = stage_of(plain, {3, 1});
  CHECK(
      ops_named(plan::localise_stage(graph, alone, alone.replicas.front(), 0)->graph, "coxswain::all_reduce").empty());
  CHECK(ops_named(plan::localise_stage(plain, two, two.replicas.front(), 0, {2, 0})->graph, "coxswain::all_reduce")
            .empty());
  plan::Stage first = stage_of(graph, {3, 1});
  first.end_block = graph.num_blocks() - 1;
  CHECK(ops_named(plan::localise_stage(graph, first, first.replicas.front(), 0, {2, 0})->graph, "coxswain::all_reduce")
            .empty());
}

TEST_CASE("on a mesh a sum is found behind the transitions that it went through") {
  const model::ModelGraph graph = make_mixture_graph(0.1);
  plan::Stage stage = stage_of(graph, {3, 1});
  for (plan::Replica& replica : stage.replicas) {
    replica.context = 2;
    replica.devices.push_back({0, replica.devices.front().index + 2});
  }
  const auto local = plan::localise_stage(graph, stage, stage.replicas.front(), 1, {2, 0});
  REQUIRE(local);
  int over_experts = 0;
  for (const model::Op* sum : ops_named(local->graph, "coxswain::all_reduce"))
    if (std::get<model::Dim>(sum->arguments[1].value) == model::Dim(static_cast<std::int64_t>(plan::kExpertAxis)))
      ++over_experts;
  CHECK(over_experts == 2);
}

}  // namespace coxswain::tests
