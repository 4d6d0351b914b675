// Copies of a tied parameter that every stage updates for itself stay equal to the bit, over the real backend.
#include "tests/worker/engine_support.h"
#include "tests/worker/host_run.h"

#include <catch2/catch.hpp>

namespace coxswain::tests {
namespace {

using plan::ScheduleKind;

}  // namespace

TEST_CASE("copies of tied parameters are equal to the bit after twenty steps") {
  // 6 blocks: the embedding, four layers, the head. The embedding is the head's weight, and layers 1, 2 and 4 have one
  // projection.
  const model::ModelGraph graph = load_fixture("gpt_shared_layers.pt2");
  worker::TrainSettings settings = eager_settings();
  settings.optimizer.clip_grad_norm = 0.5;  // below the norm of the first steps: copies are scaled by it
  const TrainingRun whole = train(graph, make_plan(graph, {{{6, {32}}}}), settings);
  REQUIRE(whole.problems == std::vector<std::string>{});
  REQUIRE(whole.grad_norms.front() > 0.5);
  struct Case {
    std::string name;
    PlanSpec spec;
    std::vector<std::vector<int>> users;  // by tied parameter: stages
  };
  const std::vector<Case> cases = {
      {"two stages", {{{3, {16}}, {6, {16}}}, 2}, {{0, 1}, {0, 1}}},
      {"two stages, unequal replicas", {{{3, {10, 6}}, {6, {3, 8, 5}}}, 2}, {{0, 1}, {0, 1}}},
      {"three stages", {{{2, {8}}, {4, {8}}, {6, {8}}}, 4, ScheduleKind::GPipe}, {{0, 2}, {0, 1, 2}}},
      {"three stages, unequal replicas", {{{2, {9, 7}}, {4, {16}}, {6, {4, 7, 5}}}, 2}, {{0, 2}, {0, 1, 2}}},
      {"two stages, split backward", {{{3, {3, 5}}, {6, {8}}}, 4, ScheduleKind::ZeroBubbleH1}, {{0, 1}, {0, 1}}},
      {"two stages, two chunks each",
       {.stages = {{0, {8}}, {0, {3, 5}}},
        .count = 4,
        .schedule = ScheduleKind::Interleaved,
        .part_ends = {2, 3, 5, 6}},
       {{0, 1}, {0, 1}}},
      // The first stage holds both ends, so the embedding is in two of its chunks and tied to no other stage.
      {"a V of two stages",
       {.stages = {{0, {3, 5}}, {0, {8}}},
        .count = 4,
        .schedule = ScheduleKind::ZeroBubbleV,
        .part_ends = {2, 3, 5, 6}},
       {{0, 1}}},
  };
  for (const Case& one : cases) {
    for (const bool one_node : {true, false}) {
      DYNAMIC_SECTION(one.name << (one_node ? ", shared memory" : ", TCP")) {
        const plan::Plan plan = make_plan(graph, one.spec);
        std::vector<std::vector<int>> users;
        for (const plan::TiedParameter& tied : plan::tied_parameters(plan, graph)) users.push_back(tied.stages);
        REQUIRE(users == one.users);
        // `problems` names each parameter of which two ranks have other bits.
        const TrainingRun run = train_over_host(graph, plan, settings, one_node);
        REQUIRE(run.problems == std::vector<std::string>{});
        // A tied parameter counts once in the norm, and its copies learn what the one parameter learns.
        for (std::size_t i = 0; i < whole.losses.size(); ++i) {
          CHECK(run.losses.at(i) == Approx(whole.losses[i]).epsilon(1e-5));
          CHECK(run.grad_norms.at(i) == Approx(whole.grad_norms[i]).epsilon(1e-4));
        }
      }
    }
  }
}

}  // namespace coxswain::tests
