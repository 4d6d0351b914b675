// C15 and C16: what is there at the fullest moment of a step, counted by hand.
#include "cost_model/stage_peak.h"

#include "model/load.h"
#include "tests/cost_model/make_plan.h"
#include "tests/cost_model/synthetic_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cost_model;
using namespace coxswain::test_support;

TEST_CASE("C15, C16: the moments of a list", "[stage_peak_test]") {
  // F0 F1 B0 F2 B1 F3 B2 B3 with two credits.
  const auto moments = moments_of(plan::make_schedule(plan::ScheduleKind::OneForwardOneBackward, 0, 2, 4), 2, true);
  std::vector<std::array<std::int64_t, 5>> found;
  for (const Moment& moment : moments)
    found.push_back({moment.before, moment.receive_activations, moment.receive_gradients, moment.send_activations,
                     moment.send_gradients});
  // F1: one before it, two on their way in, the next gradient, what F0 sends. B0: the same behind F1, but that
  // its gradient came after what F1 sent. F2: behind B0.
  // B3: behind B2, nothing left to come.
  CHECK(found ==
        std::vector<std::array<std::int64_t, 5>>{{1, 2, 1, 1, 0}, {1, 2, 1, 0, 0}, {1, 1, 1, 0, 1}, {0, 0, 0, 0, 1}});
}

TEST_CASE("C15: the first stage of zbh1 holds what that of 1f1b holds, the second does not", "[stage_peak_test]") {
  using plan::ScheduleKind;
  const auto kinds_and_counts = [](ScheduleKind schedule, int stage) {
    std::vector<std::array<std::int64_t, 4>> found;
    for (const Moment& moment : moments_of(plan::make_schedule(schedule, stage, 3, 5), 2, stage == 0))
      found.push_back({static_cast<std::int64_t>(moment.kind), moment.before, moment.owed, moment.receive_activations});
    return found;
  };
  CHECK(kinds_and_counts(ScheduleKind::ZeroBubbleH1, 0) == kinds_and_counts(ScheduleKind::OneForwardOneBackward, 0));
  CHECK(kinds_and_counts(ScheduleKind::ZeroBubbleH1, 1) != kinds_and_counts(ScheduleKind::OneForwardOneBackward, 1));
}

TEST_CASE("C15, C16: chunks count with their own bytes, edges with all that they carry", "[stage_peak_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  const auto resources = two_devices();
  FakeCost cost(graph, resources);
  cost.saved = {0, 1000, 10'000, 100'000, 1'000'000};
  const std::int64_t cut = 8 * 4;
  const auto parts = [&](const plan::Plan& plan, int stage) { return estimate_memory(cost, plan, stage, 0); };
  // Stage 0: F0 F1 F0' F1' F2 B0' F3 ...: at most three of the first chunk and two of the second.
  const auto ring = make_chunked_plan(graph, resources, plan::ScheduleKind::Interleaved, 2, 2, 4);
  CHECK(parts(ring, 0).activations.value == 3 * 1000 + 2 * 100'000);
  CHECK(parts(ring, 1).activations.value == 2 * 10'000 + 1 * 1'000'000);
  CHECK(parts(ring, 0).parameters.value == 2 * 64 * 4);
  CHECK(parts(ring, 0).transfers.value > 0);
  CHECK(parts(ring, 0).transfers.value <= 2 * (2 + 1) * cut);
  // A V: down and up between the stages, nothing at the turn.
  const auto v = make_chunked_plan(graph, resources, plan::ScheduleKind::ZeroBubbleV, 2, 2, 4);
  CHECK(parts(v, 0).activations.value == 3 * 1000 + 1 * 1'000'000);
}

// What the engine's allocator held in such a stage: one buffer for the first gradient, and as many results as there are
// credits, since the next stage computes while they come (memory_truth, an embedding of three micro-batches).
TEST_CASE("C16: results of an embedding alone wait one behind the other, as far as there are credits",
          "[stage_peak_test]") {
  constexpr std::int64_t kTokens = 16, kHidden = 64;
  const JsonObject config{{"model_type", "gpt2"}, {"n_layer", 3},       {"n_head", 4},
                          {"n_embd", kHidden},    {"vocab_size", 1000}, {"n_positions", kTokens}};
  const auto graph = model::build_from_config(config, {.sequence_length = kTokens});
  REQUIRE(graph);
  const auto resources = two_devices();
  const FakeCost cost(*graph, resources);
  const std::int64_t cut = 5 * kTokens * kHidden * 4;
  const auto buffers = [&](int end_block, int credits) {
    auto plan = make_plan(*graph, resources, {{0, end_block, {{0, 0}}, {5}}, {end_block, 5, {{0, 1}}, {5}}}, 4);
    plan.schedule = plan::ScheduleKind::GPipe;
    plan.receive_credits = credits;
    plan.roles.clear();
    const std::int64_t bytes = estimate_memory(cost, plan, 0, 0).transfers.value;
    CHECK(bytes % cut == 0);
    return bytes / cut;
  };
  CHECK(buffers(1, 1) == 1 + 1);
  CHECK(buffers(1, 2) == 1 + 2);
  CHECK(buffers(1, 3) == 1 + 3);
  CHECK(buffers(1, 9) == 1 + 4);  // there are no more
  CHECK(buffers(3, 3) == 1 + 1);  // a layer takes longer than its result's way
}
