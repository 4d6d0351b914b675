// C14-C17 counted by hand on a chain of 8 x 8 layers (64 parameters each).
#include "cost_model/memory.h"

#include <array>

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("C14: parameters, gradients and optimizer take 4, 4 and 8 bytes, 2 more under bfloat16", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const ModelFacts facts(graph);
  const PersistentMemory full = estimate_persistent_memory(facts, 1, 4, plan::Precision::Float32);
  CHECK(full.parameters.value == 3 * 64 * 4);
  CHECK(full.gradients.value == 3 * 64 * 4);
  CHECK(full.optimizer.value == 3 * 64 * 8);
  CHECK(full.updated_elements == 3 * 64);
  CHECK(estimate_persistent_memory(facts, 1, 4, plan::Precision::BFloat16).parameters.value == 3 * 64 * 6);
}

TEST_CASE("C14: every stage that uses a tied parameter holds all of its state", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8, true);
  const ModelFacts facts(graph);
  const PersistentMemory copy = estimate_persistent_memory(facts, 4, 6, plan::Precision::Float32);
  CHECK(copy.parameters.value == 2 * 64 * 4);  // layer 3 and the copy of layer 0
  CHECK(copy.gradients.value == 2 * 64 * 4);
  CHECK(copy.optimizer.value == 2 * 64 * 8);
  CHECK(estimate_persistent_memory(facts, 0, 6, plan::Precision::Float32).parameters.value == 4 * 64 * 4);  // once
}

TEST_CASE("C15: activations follow the schedule's micro-batches in flight", "[memory_test]") {
  using plan::ScheduleKind;
  for (const int count : {1, 2, 3, 8}) {
    for (int stage = 0; stage < 4; ++stage) {
      CHECK(peak_in_flight(ScheduleKind::GPipe, stage, 4, count) == count);
      CHECK(peak_in_flight(ScheduleKind::OneForwardOneBackward, stage, 4, count) == std::min(count, 4 - stage));
    }
  }
}

TEST_CASE("C15: a split backward holds until W", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.saved = {0, 1000, 1000, 1000, 1000, 10};
  const std::vector<StageSpec> stages{{0, 3, {{0, 0}}, {5}}, {3, 6, {{0, 1}}, {5}}};
  const auto held = [&](plan::ScheduleKind kind, int stage) {
    return estimate_memory(cost, make_plan(graph, resources, stages, 4, kind), stage, 0).activations.value;
  };
  CHECK(held(plan::ScheduleKind::ZeroBubbleH1, 0) == 2 * 2 * 5000);
  CHECK(held(plan::ScheduleKind::ZeroBubbleH1, 1) == 2 * (2 * 5000 + 50));
  CHECK(held(plan::ScheduleKind::ZeroBubbleH2, 1) == 3 * (2 * 5000 + 50));
  // The list counts, not its name: here the order of GPipe.
  auto plan = make_plan(graph, resources, stages, 4);
  std::vector<std::vector<plan::Action>> all;
  for (int s = 0; s < 2; ++s) all.push_back(plan::make_schedule(plan::ScheduleKind::GPipe, s, 2, 4));
  plan::fill_roles(plan, graph, Bytes(1), all);
  CHECK(estimate_memory(cost, plan, 1, 0).activations.value == 4 * (2 * 5000 + 50));
}

TEST_CASE("C15: what is recomputed under a split backward is there in I, what W needs until W", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.saved = {0, 1000, 1000, 1000, 1000, 0};
  const std::vector<StageSpec> stages{{0, 3, {{0, 0}}, {1}, plan::Recompute::Full},
                                      {3, 6, {{0, 1}}, {1}, plan::Recompute::Full}};
  const std::int64_t cut = 8 * 4;
  const auto plan = make_plan(graph, resources, stages, 4, plan::ScheduleKind::ZeroBubbleH1);
  const auto held = [&](int stage) {
    const plan::MemoryParts parts = estimate_memory(cost, plan, stage, 0);
    return parts.activations.value + parts.workspace.value;
  };
  // Stage 1: F0 I0 F1 I1 W0 ...: in I1 what I0 left (2000), block 4's part of the same and, at its lowest block, 1000
  // made again while the gradient of what it sends waits.
  CHECK(held(1) == 2000 + 1000 + 1000 + cut);
  // Stage 0: F0 F1 B0, its I and W being one: the input of micro-batch 1's second layer (the first has the loader's),
  // and 1000 made again in one block at a time.
  CHECK(held(0) == cut + 1000 + cut);
}

TEST_CASE("C15: a run's peaks follow its blocks", "[memory_test]") {
  // Each digit names its term: 1 kept, 10 owed; F at 100, B at 1000, I at 10^4, W at 10^5 above nothing.
  HeldBytes first{1, 10, 100, 1000, 10'000, 100'000}, second{2, 20, 200, 2000, 20'000, 200'000};
  HeldBytes run;
  append(run, first);
  append(run, second);
  CHECK(run.kept == 3);
  CHECK(run.owed == 30);
  CHECK(run.forward == 1 + 200);
  CHECK(run.backward == 1 + 2000);
  CHECK(run.input == 1 + 20'000);
  CHECK(run.weight == 10 + 200'000);
  // The lower block is the greater one: what is behind it is freed, or owed.
  HeldBytes other;
  append(other, second);
  append(other, first);
  CHECK(other.forward == 200);
  CHECK(other.backward == 2000);
  CHECK(other.input == 20'000 + 10);
  CHECK(other.weight == 200'000);

  // Runs of runs, and the same block several times: as one after the other.
  HeldBytes owing{1, 10, 1, 5, 12, 30}, keeping{10, 1, 11, 40, 12, 2};
  for (const HeldBytes& block : {owing, keeping}) {
    HeldBytes one_by_one, halves, right, at_once;
    append(one_by_one, first);
    append(halves, first);
    append(at_once, first);
    for (int i = 0; i < 4; ++i) append(one_by_one, block);
    append(right, block);
    append(right, block);
    append(halves, right);
    append(halves, right);
    append(at_once, block, 4);
    for (const HeldBytes& found : {halves, at_once}) {
      CHECK(std::array{found.kept, found.owed} == std::array{one_by_one.kept, one_by_one.owed});
      CHECK(std::array{found.forward, found.backward, found.input, found.weight} ==
            std::array{one_by_one.forward, one_by_one.backward, one_by_one.input, one_by_one.weight});
    }
  }
}

TEST_CASE("C15, C31: what a block holds by what it recomputes", "[memory_test]") {
  BlockTime time;
  time.saved = Bytes(1000);
  time.selective = Bytes(400);
  time.owed = Bytes(700);
  time.transient = Bytes(30);
  time.forward_transient = Bytes(20);
  time.plain_transient = Bytes(50);
  time.input_transient = Bytes(40);
  time.weight_transient = Bytes(5);
  using plan::Recompute;
  const HeldBytes none = held_bytes(time, Recompute::None, Bytes(100), Bytes(60));
  CHECK(std::array{none.kept, none.owed, none.forward, none.backward, none.input, none.weight} ==
        std::array<std::int64_t, 6>{1000, 700, 1020, 1030, 1040, 705});
  // The forward again, with graph, while the gradients of what it sent wait.
  const HeldBytes full = held_bytes(time, Recompute::Full, Bytes(100), Bytes(60));
  CHECK(std::array{full.kept, full.owed, full.forward, full.backward, full.input, full.weight} ==
        std::array<std::int64_t, 6>{100, 700, 150, 1080, 1080, 705});
  const HeldBytes selective = held_bytes(time, Recompute::Selective, Bytes(100), Bytes(60));
  CHECK(std::array{selective.kept, selective.owed, selective.forward, selective.backward, selective.input,
                   selective.weight} == std::array<std::int64_t, 6>{400, 700, 450, 1060, 1060, 705});
}

TEST_CASE("C34: of activations that move, the block at work and the one before it are here", "[memory_test]") {
  using plan::ActionKind;
  // Two alike, one that keeps much, a small one.
  const HeldBytes small{10, 4, 30, 25, 22, 6}, large{70, 8, 75, 90, 85, 9};
  const std::vector<HeldBytes> blocks{small, small, large, small};
  HeldRun run;
  run.add(small, 2);
  run.add(large);
  run.add(small);
  std::int64_t forward = 0, backward = 0, input = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const std::int64_t beside = b > 0 ? blocks[b - 1].kept : 0;
    std::int64_t owed = 0;
    for (std::size_t behind = b + 1; behind < blocks.size(); ++behind) owed += blocks[behind].owed;
    forward = std::max(forward, beside + blocks[b].forward);
    backward = std::max(backward, beside + blocks[b].backward);
    input = std::max(input, beside + blocks[b].input + owed);
  }
  CHECK(run.held(ActionKind::Forward, 1000, 3, true) == forward + 3);
  CHECK(run.held(ActionKind::Backward, 1000, 3, true) == backward + 3);
  CHECK(run.held(ActionKind::BackwardInput, 1000, 3, true) == input + 3);
  CHECK(run.held(ActionKind::BackwardWeight, 1000, 3, true) == run.all.weight + 3);
  CHECK(run.held(ActionKind::Forward, 1000, 3, false) == 1003 + run.all.forward);
}

TEST_CASE("C15-C17: each part of a stage's memory", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1, 1};
  cost.saved = {0, 1000, 1000, 1000, 1000, 10};
  const std::int64_t cut = 8 * 4;  // bytes a sample
  auto plan = make_plan(graph, resources, {{0, 3, {{0, 0}}, {5}}, {3, 6, {{0, 1}}, {5}}}, 4);
  plan::MemoryParts first = estimate_memory(cost, plan, 0, 0);
  CHECK(first.activations.value == 2 * 2 * 5000);     // two in flight, two layers, five samples
  CHECK(first.transfers.value == (1 + 1) * 5 * cut);  // the next gradient, activations out
  const plan::MemoryParts last = estimate_memory(cost, plan, 1, 0);
  CHECK(last.activations.value == 2 * 5000 + 50);
  CHECK(last.transfers.value == (2 + 1) * 5 * cut);  // two credits, gradients out
  const std::int64_t sum = first.parameters.value + first.gradients.value + first.optimizer.value +
                           first.activations.value + first.transfers.value;
  CHECK(first.margin.value == sum / 20);
  CHECK(first.total().value == sum + sum / 20);

  // Recomputing: what crosses into each block is kept (the first layer's input comes from the loader), and one block's
  // tensors are there while it is replayed and the gradient of what it sent waits.
  plan.stages[0].recompute.assign(3, plan::Recompute::Full);
  first = estimate_memory(cost, plan, 0, 0);
  CHECK(first.activations.value == 2 * 5 * cut);
  CHECK(first.workspace.value == 5000);
}

TEST_CASE("C35: each communicator of an accelerator has buffers for the channels of its link", "[memory_test]") {
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30);
  auto graph = make_cluster({gpu}, {4}, 2, make_link("inner", 0, 240e9), make_link("outer", 0, 25e9, 2));
  const model::ModelGraph chain = make_chain(2, 8);
  const auto cost = make_cost_model(chain, graph, nullptr);  // sees what becomes of `graph`
  StageWork work;
  work.replicas = 8;
  CHECK(estimate_communicators(*cost, work).value == 0);  // a CPU
  graph.device_classes[0].kind = cluster::DeviceKind::Cuda;
  const std::int64_t inner = 24 * kChannelBytes.value, outer = 5 * kChannelBytes.value;
  const auto bytes = [&] { return estimate_communicators(*cost, work).value; };
  CHECK(bytes() == 2 * outer);  // replicas and the world
  work.tensor = 2;
  CHECK(bytes() == inner + 2 * outer);
  work.context = 2;
  CHECK(bytes() == 2 * inner + 2 * outer);
  work.expert = 2;
  CHECK(bytes() == 2 * inner + 4 * outer);
  work.last_stage = false;
  // Two edges with the next stage: a pool of messages each.
  CHECK(bytes() == 2 * inner + 4 * outer + 2 * 5 * kEdgeChannelBytes.value);
  StageWork alone;
  CHECK(estimate_communicators(*cost, alone).value == 0);
  StageWork stage;
  stage.end_block = 4;
  stage.samples = 1;
  stage.recompute.assign(4, plan::Recompute::None);
  const Bytes without = estimate_stage_memory(*cost, stage).workspace;
  stage.replicas = 8;
  CHECK((estimate_stage_memory(*cost, stage).workspace - without).value == 2 * outer);
}
