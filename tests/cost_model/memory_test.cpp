// C14-C17 counted by hand on a chain of 8 x 8 layers (64 parameters each).
#include "cost_model/memory.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

namespace {

cluster::ResourceGraph two_devices() {
  return make_cluster({make_device("d", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
}

}  // namespace

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

TEST_CASE("C15: what is recomputed under a split backward stays until W", "[memory_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.saved = {0, 1000, 1000, 1000, 1000, 0};
  const std::vector<StageSpec> stages{{0, 3, {{0, 0}}, {1}, plan::Recompute::Full},
                                      {3, 6, {{0, 1}}, {1}, plan::Recompute::Full}};
  const std::int64_t cut = 8 * 4;
  // Stage 1 of H1: F0 I0 F1 I1 W0 ...: two micro-batches between I and W; inputs of three blocks before that.
  const auto plan = make_plan(graph, resources, stages, 4, plan::ScheduleKind::ZeroBubbleH1);
  CHECK(estimate_memory(cost, plan, 1, 0).activations.value == 2 * 2000);
  CHECK(estimate_memory(cost, plan, 0, 0).activations.value == cut + 2000);  // F0 F1 I0: one block's input each
}

TEST_CASE("C15, C16: chunks count with their own bytes, edges with all that they carry", "[memory_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.saved = {0, 1, 10, 100, 1000};
  const std::int64_t cut = 8 * 4;
  // Stage 0: F0 F1 F0' F1' F2 B0' F3 ...: at most three of the first chunk and two of the second.
  const auto ring = make_chunked_plan(graph, resources, plan::ScheduleKind::Interleaved, 2, 2, 4);
  CHECK(estimate_memory(cost, ring, 0, 0).activations.value == 3 * 1 + 2 * 100);
  CHECK(estimate_memory(cost, ring, 1, 0).activations.value == 2 * 10 + 1 * 1000);
  CHECK(estimate_memory(cost, ring, 0, 0).transfers.value == 2 * (2 + 1) * cut);  // out, and back in
  CHECK(estimate_memory(cost, ring, 0, 0).parameters.value == 2 * 64 * 4);
  // Three micro-batches in one round: a buffer more on the edge back.
  const auto odd = make_chunked_plan(graph, resources, plan::ScheduleKind::Interleaved, 2, 2, 3);
  CHECK(estimate_memory(cost, odd, 0, 0).transfers.value == (2 * (2 + 1) + 1) * cut);
  // A V: down and up between the stages, nothing at the turn.
  const auto v = make_chunked_plan(graph, resources, plan::ScheduleKind::ZeroBubbleV, 2, 2, 4);
  CHECK(estimate_memory(cost, v, 1, 0).transfers.value == 2 * (2 + 1) * cut);
  CHECK(estimate_memory(cost, v, 0, 0).activations.value == 3 * 1 + 1 * 1000);
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
  CHECK(first.transfers.value == (2 + 1) * 5 * cut);  // gradients in (two credits), activations out
  const plan::MemoryParts last = estimate_memory(cost, plan, 1, 0);
  CHECK(last.activations.value == 2 * 5000 + 50);
  CHECK(last.transfers.value == (2 + 1) * 5 * cut);
  const std::int64_t sum = first.parameters.value + first.gradients.value + first.optimizer.value +
                           first.activations.value + first.transfers.value;
  CHECK(first.margin.value == sum / 20);
  CHECK(first.total().value == sum + sum / 20);

  // Recomputing: what crosses into each block is kept (the first layer's input comes from the loader), and one block's
  // tensors are there while it is replayed.
  plan.stages[0].recompute.assign(3, plan::Recompute::Full);
  first = estimate_memory(cost, plan, 0, 0);
  CHECK(first.activations.value == 2 * 5 * cut + 5000);
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
