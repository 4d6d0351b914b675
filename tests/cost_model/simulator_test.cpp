// Whole steps in virtual time against formulas worked out on paper: block forward 1 s a sample, backward 2 s.
#include "cost_model/simulator.h"

#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;
using plan::ScheduleKind;

namespace {

/// Devices of kind CUDA, so that copies take no compute time, over links of `bandwidth`.
cluster::ResourceGraph accelerators(std::int64_t count, double bandwidth = 1e18, std::int64_t nodes = 1) {
  cluster::DeviceClass device = make_device("gpu", std::int64_t{1} << 40, 1e9, 1e18);
  device.kind = cluster::DeviceKind::Cuda;
  return make_cluster({device}, {count}, nodes, make_link("l", 0, bandwidth), make_link("o", 0, bandwidth));
}

double simulated_step(const CostModel& cost, const plan::Plan& plan) {
  const auto simulation = simulate(cost, plan);
  REQUIRE(simulation.has_value());
  const plan::Estimate& e = simulation->estimate;
  CHECK((e.forward + e.backward + e.recompute + e.communication_exposed + e.bubble + e.optimizer).value ==
        Approx(e.step.value));
  return e.step.value;
}

}  // namespace

TEST_CASE("one device computes one thing after the other", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources = accelerators(1);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1};
  cost.optimizer_per_parameter = 0.5;
  cost.step_overhead = 100;
  const auto plan = make_plan(graph, resources, {{0, 4, {{0, 0}}, {3}}}, 2);
  const auto simulation = simulate(cost, plan);
  REQUIRE(simulation.has_value());
  const plan::Estimate& e = simulation->estimate;
  CHECK(e.forward.value == Approx(2 * 9));
  CHECK(e.backward.value == Approx(2 * 18));
  CHECK(e.optimizer.value == Approx(128 * 0.5 + 100));
  CHECK(e.step.value == Approx(18 + 36 + 164));
  CHECK(e.bubble.value == Approx(0).margin(1e-9));
}

TEST_CASE("GPipe and 1F1B of equal stages take (m + S - 1) (F + B)", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = accelerators(4);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1};
  const std::vector<StageSpec> stages{
      {0, 2, {{0, 0}}, {1}}, {2, 3, {{0, 1}}, {1}}, {3, 4, {{0, 2}}, {1}}, {4, 5, {{0, 3}}, {1}}};
  for (const ScheduleKind schedule : {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward}) {
    for (const int count : {1, 2, 4, 9}) {
      const auto plan = make_plan(graph, resources, stages, count, schedule);
      CHECK(simulated_step(cost, plan) == Approx((count + 3) * 3.0));
    }
  }
}

TEST_CASE("zero-bubble schedules of equal stages end when published", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = accelerators(4);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1};
  const std::vector<StageSpec> stages{
      {0, 2, {{0, 0}}, {1}}, {2, 3, {{0, 1}}, {1}}, {3, 4, {{0, 2}}, {1}}, {4, 5, {{0, 3}}, {1}}};
  struct Times {
    double input, weight;
  };
  for (const Times times : {Times{1, 1}, Times{2, 1}, Times{1.5, 1}}) {
    cost.input = times.input;
    cost.weight = times.weight;
    const double work = 1 + times.input + times.weight;
    for (const int count : {8, 9, 16}) {
      // Table 2 of arXiv 2401.10241: bubble (p - 1)(F + I - W).
      const auto first = make_plan(graph, resources, stages, count, ScheduleKind::ZeroBubbleH1);
      CHECK(simulated_step(cost, first) == Approx(count * work + 3 * (1 + times.input - times.weight)));
    }
  }
  // H2 with F = I = W: from its first forward on no stage waits; the norm's commit point still waits for the last.
  cost.input = cost.weight = 1;
  for (const int count : {7, 8, 20}) {
    const auto second = make_plan(graph, resources, stages, count, ScheduleKind::ZeroBubbleH2);
    CHECK(simulated_step(cost, second) == Approx(count * 3 + 3));
    const auto simulation = simulate(cost, second);
    for (int role = 0; role < 4; ++role) {
      double begin = 1e18, end = 0;
      for (const SimulatedAction& at : simulation->actions) {
        const plan::ActionKind kind =
            second.roles[static_cast<std::size_t>(at.role)].actions[static_cast<std::size_t>(at.action)].kind;
        if (at.role != role || kind == plan::ActionKind::Optimizer || !plan::is_compute(kind)) continue;
        if (kind == plan::ActionKind::CountLoss) continue;
        begin = std::min(begin, at.start);
        end = std::max(end, at.end);
      }
      CHECK(begin == Approx(role));
      CHECK(end - begin == Approx(3 * count));
    }
  }
}

TEST_CASE("interleaved stages divide the bubble by the chunks", "[simulator_test]") {
  for (const int num_stages : {2, 3, 4}) {
    for (const int chunks : {2, 3}) {
      const model::ModelGraph graph = make_chain(num_stages * chunks - 1, 8);
      const auto resources = accelerators(4);
      FakeCost cost(graph, resources);
      cost.forward.assign(graph.blocks.size(), 1.0 / chunks);  // a stage takes 1 s forward, 2 s backward
      cost.forward[0] = 0;
      for (const int rounds : {1, 2, 4}) {
        // (p - 1) (F + B) / v: arXiv 2104.04473, section 2.2.2; with larger rounds too.
        for (const int count : {num_stages * rounds, num_stages * rounds + 1, num_stages * (rounds + 1) - 1}) {
          CAPTURE(num_stages, chunks, count);
          const auto plan = make_chunked_plan(graph, resources, ScheduleKind::Interleaved, num_stages, chunks, count);
          CHECK(simulated_step(cost, plan) == Approx(3.0 * count + 3.0 * (num_stages - 1) / chunks));
        }
      }
    }
  }
}

TEST_CASE("a V of equal forwards, input and weight gradients has no bubble once it has begun", "[simulator_test]") {
  for (const int num_stages : {2, 3, 4, 8}) {
    const model::ModelGraph graph = make_chain(2 * num_stages - 1, 8);
    const auto resources = accelerators(8);
    FakeCost cost(graph, resources);
    cost.forward.assign(graph.blocks.size(), 1.0);
    cost.forward[0] = 0;
    // From 2p micro-batches on: arXiv 2401.10241, section 6. The last stage begins p - 1 forwards late.
    for (const int count : {2 * num_stages, 2 * num_stages + 1, 5 * num_stages}) {
      const auto plan = make_chunked_plan(graph, resources, ScheduleKind::ZeroBubbleV, num_stages, 2, count);
      CAPTURE(num_stages, count);
      CHECK(simulated_step(cost, plan) == Approx(6.0 * count + num_stages - 1));
    }
  }
}

TEST_CASE("a message back to the first stage takes its time", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = accelerators(2, 16);  // 32 bytes a sample: 2 s a message
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1};
  const double norm =
      cost.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(16), {{0, 0}, {0, 1}}).value;
  // One micro-batch: four parts of 1 + 2 s; three messages each way around the ring, two over the V with its turn.
  const auto ring = make_chunked_plan(graph, resources, ScheduleKind::Interleaved, 2, 2, 1);
  CHECK(simulated_step(cost, ring) == Approx(4 * 3 + 6 * 2 + norm));
  const auto v = make_chunked_plan(graph, resources, ScheduleKind::ZeroBubbleV, 2, 2, 1);
  // Of stage 0's first part the weight gradient comes last; the others' hide in the messages, but the turn's own.
  CHECK(simulated_step(cost, v) == Approx(4 * 2 + 1 + 4 * 2 + 1 + norm));
}

TEST_CASE("recompute adds a forward pass to the backward", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources = accelerators(1);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 0};
  const auto plan = make_plan(graph, resources, {{0, 4, {{0, 0}}, {3}, plan::Recompute::Full}}, 2);
  const auto simulation = simulate(cost, plan);
  REQUIRE(simulation.has_value());
  CHECK(simulation->estimate.recompute.value == Approx(12));
  CHECK(simulation->estimate.step.value == Approx(12 + 24 + 12));
}

TEST_CASE("the slower replica sets the pace and unequal samples mend it", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(1, 8);
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30, 1e9, 1e18), slow = make_device("slow", 1 << 30, 1e9, 1e18);
  gpu.kind = slow.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({gpu, slow}, {1, 1}, 1, make_link("l", 0, 1e18), make_link("o", 0, 1e18));
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 0};
  cost.speed = {1.0, 0.5};
  CHECK(simulated_step(cost, make_plan(graph, resources, {{0, 3, {{0, 0}, {1, 0}}, {3, 3}}}, 2)) == Approx(2 * 18.0));
  CHECK(simulated_step(cost, make_plan(graph, resources, {{0, 3, {{0, 0}, {1, 0}}, {4, 2}}}, 2)) == Approx(2 * 12.0));
}

TEST_CASE("gradients are reduced after the last backward, beside what remains of it", "[simulator_test]") {
  // 64 x 64 float32 = 16 KiB a layer over a link of 16 KiB a second; two ranks ring: each sends the payload once.
  const model::ModelGraph graph = make_chain(2, 64);
  const auto resources = accelerators(1, 16384, 2);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 0};
  const auto all_reduce = [&](std::int64_t bytes) {
    return cost.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(bytes), {{0, 0}, {0, 1}}).value;
  };
  const std::vector<StageSpec> stages{{0, 4, {{0, 0}, {0, 1}}, {1, 1}}};
  const double norm = all_reduce(16);
  const double whole = simulated_step(cost, make_plan(graph, resources, stages, 1));
  CHECK(whole == Approx(2 + 4 + all_reduce(32768) + norm));
  // One bucket a layer: the second layer's bucket goes while the first layer's backward (2 s) runs.
  const double bucketed =
      simulated_step(cost, make_plan(graph, resources, stages, 1, ScheduleKind::OneForwardOneBackward, Bytes(16384)));
  CHECK(bucketed == Approx(2 + 2 + std::max(2.0, all_reduce(16384)) + all_reduce(16384) + norm));
}

TEST_CASE("a tied parameter is summed once, both stages update it and nothing follows", "[simulator_test]") {
  // 16 KiB a layer, 256 bytes an edge; the epilogue uses the first layer's parameter.
  const model::ModelGraph graph = make_chain(2, 64, true);
  const auto resources = accelerators(1, 16384, 2);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 0};
  cost.optimizer_per_parameter = 1.0 / 4096;
  const auto plan = make_plan(graph, resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 1);
  const auto all_reduce = [&](std::int64_t bytes) {
    return cost.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(bytes), {{0, 0}, {0, 1}}).value;
  };
  const double edge = 256.0 / 16384, update = 2;  // of the last stage: its own layer and the copy
  CHECK(simulated_step(cost, plan) ==
        Approx(1 + edge + 1 + 2 + edge + 2 + all_reduce(16384) + all_reduce(16) + update));
}

TEST_CASE("an edge delays the next stage by its time, and the last backward on the way back", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources = accelerators(2, 16);  // 32 bytes a sample: 2 s a message
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 0, 1};
  const auto plan = make_plan(graph, resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 1);
  const double norm =
      cost.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(16), {{0, 0}, {0, 1}}).value;
  CHECK(simulated_step(cost, plan) == Approx(1 + 2 + 1 + 2 + 2 + 2 + norm));
}

TEST_CASE("transfers run beside compute", "[simulator_test]") {
  // Three micro-batches; edges of 0.5 s hide behind 3 s of work except at the ends.
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources = accelerators(2, 64);
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 0, 1};
  const double norm =
      cost.estimate_collective(collective::CollectiveKind::AllReduce, Bytes(16), {{0, 0}, {0, 1}}).value;
  const std::vector<StageSpec> stages{{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}};
  // GPipe: stage 1 gets its first input at 1.5, works 3 x 3 s without a gap, then 0.5 back and 2 of backward.
  CHECK(simulated_step(cost, make_plan(graph, resources, stages, 3, ScheduleKind::GPipe)) ==
        Approx(1.5 + 9 + 0.5 + 2 + norm));
  // 1F1B: stage 0 runs F2 only after B0 (5 to 7), so F2 arrives at 8.5, one second after stage 1 ran dry.
  CHECK(simulated_step(cost, make_plan(graph, resources, stages, 3)) == Approx(8.5 + 3 + 0.5 + 2 + norm));
}

TEST_CASE("C19: on a CPU copies slow the compute they run beside", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(2, 8);
  const auto resources =
      make_cluster({make_device("cpu", 1 << 30, 1e9, 1e18)}, {2}, 1, make_link("l", 0, 64), make_link("o", 0, 64));
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 0, 1};
  const auto plan = make_plan(graph, resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 3);
  const auto gpu_resources = accelerators(2, 64);
  FakeCost gpu(graph, gpu_resources);
  gpu.forward = cost.forward;
  const double on_cpu = simulated_step(cost, plan);
  const double on_gpu =
      simulated_step(gpu, make_plan(graph, gpu_resources, {{0, 2, {{0, 0}}, {1}}, {2, 4, {{0, 1}}, {1}}}, 3));
  CHECK(on_cpu > on_gpu + 0.4);           // at least one copy of half a second fell on a busy core
  CHECK(on_cpu < on_gpu + 12 * 0.5 + 1);  // and no more than all of them
}

TEST_CASE("the same plan gives the same run", "[simulator_test]") {
  const model::ModelGraph graph = make_chain(3, 8, true);
  const auto resources = accelerators(4, 100);
  FakeCost cost(graph, resources);
  const auto plan =
      make_plan(graph, resources, {{0, 3, {{0, 0}, {0, 1}}, {2, 1}}, {3, 5, {{0, 2}, {0, 3}}, {1, 2}}}, 4);
  const auto a = simulate(cost, plan), b = simulate(cost, plan);
  REQUIRE(a.has_value());
  REQUIRE(b.has_value());
  CHECK(a->estimate == b->estimate);
  CHECK(a->actions.size() == b->actions.size());
}
