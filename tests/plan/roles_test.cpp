#include "plan/derive.h"
#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

std::string text_of(const std::vector<Action>& actions) {
  std::string text;
  for (const Action& action : actions) text += (text.empty() ? "" : " ") + to_text(action);
  return text;
}

TEST_CASE("one rank computes, counts the loss and updates, and sends nothing", "[roles]") {
  const Plan plan = make_plan(make_chain_graph(), make_cpu_cluster({1}), {.samples = {{4}}, .count = 2});
  REQUIRE(plan.roles.size() == 1);
  CHECK(text_of(plan.roles[0].actions) == "COUNT_LOSS F0[0,6) B0[0,6) F1[0,6) B1[0,6) REDUCE_NORM OPTIMIZER");
  CHECK(plan.stages[0].bucket_starts.empty());
}

TEST_CASE("two stages of one and two replicas", "[roles]") {
  // Blocks: prologue 0, layers 1-4, epilogue 5; the embedding is tied to the head, so blocks 0 and 5 have no bucket.
  const Plan plan =
      make_plan(make_chain_graph(), make_cpu_cluster({3}), {.cuts = {3}, .samples = {{4}, {3, 1}}, .count = 2});
  REQUIRE(plan.roles.size() == 3);
  CHECK(text_of(plan.roles[0].actions) ==
        "F0[0,3) SEND_F0 F1[0,3) SEND_F1 RECV_B0 B0[0,3) RECV_B1 B1[0,3) REDUCE_TIED0 REDUCE_NORM OPTIMIZER");
  const char* second =
      "COUNT_LOSS REDUCE_LOSS_COUNT RECV_F0 F0[3,6) B0[3,6) SEND_B0 RECV_F1 F1[3,6) "
      "B1[4,6) REDUCE_GRAD[4,6) B1[3,4) REDUCE_GRAD[3,4) SEND_B1 REDUCE_TIED0 REDUCE_NORM OPTIMIZER";
  CHECK(text_of(plan.roles[1].actions) == second);
  CHECK(plan.roles[2].actions == plan.roles[1].actions);
  CHECK(plan.roles[1].replicas == std::vector<int>{0});
  CHECK(plan.roles[2].replicas == std::vector<int>{1});
  CHECK(plan.stages[1].bucket_starts == std::vector<int>{4, 3});
}

TEST_CASE("a mesh sums what its positions do not all cut once a step", "[roles]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({4}), {.samples = {{3, 1}}, .count = 1});
  std::int64_t device = 0;
  for (Replica& replica : plan.stages[0].replicas) {
    replica.tensor = 2;
    replica.devices = {{0, device}, {0, device + 1}};
    device += 2;
  }
  fill_roles(plan, graph, Bytes(1 << 30));
  CHECK(text_of(plan.roles[0].actions) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,6) B0[0,6) REDUCE_GRAD[0,6) REDUCE_SHARED REDUCE_NORM OPTIMIZER");
  CHECK(check_order(plan, graph).empty());
  // Where meshes differ no two devices hold equal shards: everything is shared.
  plan.stages[0].replicas[1].tensor = 1;
  plan.stages[0].replicas[1].devices.pop_back();
  fill_roles(plan, graph, Bytes(1));
  CHECK(plan.stages[0].bucket_starts.empty());
  CHECK(text_of(plan.roles[1].actions) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT F0[0,6) B0[0,6) REDUCE_SHARED REDUCE_NORM OPTIMIZER");
  CHECK(check_order(plan, graph).empty());
}

TEST_CASE("a split backward sends after I and reduces behind the last W", "[roles]") {
  const Plan plan =
      make_plan(make_chain_graph(), make_cpu_cluster({3}),
                {.cuts = {3}, .samples = {{4}, {3, 1}}, .count = 2, .schedule = ScheduleKind::ZeroBubbleH1});
  CHECK(text_of(plan.roles[0].actions) ==
        "F0[0,3) SEND_F0 F1[0,3) SEND_F1 RECV_B0 I0[0,3) W0[0,3) RECV_B1 I1[0,3) W1[0,3) REDUCE_TIED0 REDUCE_NORM "
        "OPTIMIZER");
  CHECK(text_of(plan.roles[1].actions) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT RECV_F0 F0[3,6) I0[3,6) SEND_B0 RECV_F1 F1[3,6) I1[3,6) SEND_B1 W0[3,6) "
        "W1[4,6) REDUCE_GRAD[4,6) W1[3,4) REDUCE_GRAD[3,4) REDUCE_TIED0 REDUCE_NORM OPTIMIZER");
}

TEST_CASE("a stage with chunks sends from chunk to chunk and reduces each chunk behind its last backward", "[roles]") {
  const auto list = [](ScheduleKind kind, std::size_t role) {
    const Plan plan =
        make_plan(make_chain_graph(), make_cpu_cluster({4}),
                  {.cuts = {1, 2, 4}, .samples = {{4}, {2, 2}}, .count = 1, .schedule = kind, .num_chunks = 2});
    return text_of(plan.roles[role].actions);
  };
  // The embedding (block 0) and the head (block 5) are one parameter: on both stages here ...
  CHECK(list(ScheduleKind::Interleaved, 0) ==
        "F0[0,1) SEND_F0 RECV_F0.1 F0.1[2,4) SEND_F0.1 RECV_B0.1 B0.1[2,4) SEND_B0.1 RECV_B0 B0[0,1) REDUCE_TIED0 "
        "REDUCE_NORM OPTIMIZER");
  CHECK(list(ScheduleKind::Interleaved, 1) ==
        "COUNT_LOSS REDUCE_LOSS_COUNT RECV_F0 F0[1,2) SEND_F0 RECV_F0.1 F0.1[4,6) B0.1[4,6) REDUCE_GRAD[4,6) SEND_B0.1 "
        "RECV_B0 B0[1,2) REDUCE_GRAD[1,2) SEND_B0 REDUCE_TIED0 REDUCE_NORM OPTIMIZER");
  // ... and on the first alone where the model turns back to it.
  CHECK(list(ScheduleKind::ZeroBubbleV, 0) ==
        "COUNT_LOSS F0[0,1) SEND_F0 RECV_F0.1 F0.1[4,6) I0.1[4,6) SEND_B0.1 W0.1[4,6) RECV_B0 I0[0,1) W0[0,1) "
        "REDUCE_NORM OPTIMIZER");
  CHECK(list(ScheduleKind::ZeroBubbleV, 1) ==
        "RECV_F0 F0[1,2) F0.1[2,4) SEND_F0.1 RECV_B0.1 I0.1[2,4) W0.1[3,4) REDUCE_GRAD[3,4) W0.1[2,3) "
        "REDUCE_GRAD[2,3) I0[1,2) SEND_B0 W0[1,2) REDUCE_GRAD[1,2) REDUCE_NORM OPTIMIZER");
}

TEST_CASE("replicas with equal class, mesh and samples share a role", "[roles]") {
  const model::ModelGraph graph = make_chain_graph();
  Plan plan = make_plan(graph, make_cpu_cluster({4, 1}), {.samples = {{2, 1, 2, 2}}, .count = 1});
  REQUIRE(plan.roles.size() == 2);
  CHECK(plan.roles[0].replicas == std::vector<int>{0, 2, 3});
  CHECK(plan.roles[1].replicas == std::vector<int>{1});
  plan.stages[0].replicas[3].devices[0] = {1, 0};
  fill_roles(plan, graph, Bytes(1));
  REQUIRE(plan.roles.size() == 3);
  CHECK(plan.roles[2].replicas == std::vector<int>{3});
}

TEST_CASE("tied parameters are those of several stages; the first owns", "[roles]") {
  const model::ModelGraph graph = make_chain_graph();
  const auto resources = make_cpu_cluster({3});
  const Plan pipeline = make_plan(graph, resources, {.cuts = {2, 4}, .samples = {{4}, {4}, {4}}});
  const auto tied = tied_parameters(pipeline, graph);
  REQUIRE(tied.size() == 1);
  CHECK(tied[0].parameter == 0);
  CHECK(tied[0].stages == std::vector<int>{0, 2});
  CHECK(text_of(pipeline.roles[1].actions).find("TIED") == std::string::npos);

  CHECK(tied_parameters(make_plan(graph, resources, {.samples = {{2, 2}}}), graph).empty());
  model::ModelGraph frozen = graph;
  frozen.parameters[0].trainable = false;
  CHECK(tied_parameters(pipeline, frozen).empty());
}

TEST_CASE("buckets close at their size and end at the stage's first block", "[roles]") {
  Stage stage;
  stage.first_block = 2;
  stage.end_block = 7;
  stage.replicas.resize(2);
  for (Replica& replica : stage.replicas) replica.devices.resize(1);
  const auto starts = [&](const std::vector<std::int64_t>& sizes, std::int64_t bucket) {
    std::vector<Bytes> bytes;
    for (const std::int64_t size : sizes) bytes.emplace_back(size);
    return make_bucket_starts(stage, bytes, Bytes(bucket));
  };
  CHECK(starts({1, 1, 1, 1, 1}, 2) == std::vector<int>{5, 3, 2});
  CHECK(starts({1, 1, 1, 1, 1}, 100) == std::vector<int>{2});
  CHECK(starts({1, 1, 1, 1, 1}, 1) == std::vector<int>{6, 5, 4, 3, 2});
  CHECK(starts({0, 0, 1, 1, 0}, 1) == std::vector<int>{5, 2});
  CHECK(starts({0, 0, 0, 0, 0}, 1).empty());
  stage.replicas.resize(1);
  CHECK(starts({1, 1, 1, 1, 1}, 1).empty());
}

TEST_CASE("no bucket spans two chunks, the last chunk comes first", "[roles]") {
  Stage stage;
  stage.first_block = 0;
  stage.end_block = 3;
  stage.chunks = {{6, 9}};
  stage.replicas.resize(2);
  for (Replica& replica : stage.replicas) replica.devices.resize(1);
  const auto starts = [&](const std::vector<std::int64_t>& sizes, std::int64_t bucket) {
    std::vector<Bytes> bytes;
    for (const std::int64_t size : sizes) bytes.emplace_back(size);
    return make_bucket_starts(stage, bytes, Bytes(bucket));
  };
  CHECK(starts({1, 1, 1, 1, 1, 1}, 2) == std::vector<int>{7, 6, 1, 0});
  CHECK(starts({1, 1, 1, 1, 1, 1}, 100) == std::vector<int>{6, 0});
  CHECK(starts({1, 1, 1, 0, 0, 0}, 100) == std::vector<int>{0});
}

TEST_CASE("a parameter counts in the lowest block of its stage that uses it", "[roles]") {
  const model::ModelGraph graph = make_chain_graph({.width = 10, .vocabulary = 100});
  Stage stage;
  stage.end_block = 6;
  // Tied inside one stage: 100 x 10 floats at block 0, nothing at block 5.
  const auto bytes = bucket_bytes_of(stage, graph);
  CHECK(bytes == std::vector<Bytes>{Bytes(4000), Bytes(400), Bytes(400), Bytes(400), Bytes(400), Bytes(0)});
}

TEST_CASE("evaluation runs forwards and edges only", "[roles]") {
  const Plan plan =
      make_plan(make_chain_graph(), make_cpu_cluster({3}), {.cuts = {2, 4}, .samples = {{4}, {4}, {4}}, .count = 2});
  CHECK(text_of(evaluation_actions(plan, 0)) == "F0[0,2) SEND_F0 F1[0,2) SEND_F1 REDUCE_NORM");
  CHECK(text_of(evaluation_actions(plan, 1)) == "RECV_F0 F0[2,4) SEND_F0 RECV_F1 F1[2,4) SEND_F1 REDUCE_NORM");
  CHECK(text_of(evaluation_actions(plan, 2)) == "RECV_F0 F0[4,6) RECV_F1 F1[4,6) REDUCE_NORM");
}

}  // namespace
}  // namespace coxswain::plan
