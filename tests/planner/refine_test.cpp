// Neighbours and climbing.
#include "planner/refine.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("neighbours move one cut, some samples, the schedule or what one block recomputes, and fit",
          "[refine_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources = make_cluster({make_device("a", 1 << 30), make_device("b", 1 << 30)}, {2, 1}, 1,
                                      make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  Counts both, first;
  both.of = {1, 1};
  first.of = {1, 0};
  const Composition mixed = make_composition(space->pools, both, Axes{}),
                    one = make_composition(space->pools, first, Axes{});
  Candidate candidate{0,     plan::ScheduleKind::OneForwardOneBackward,
                      8,     1,
                      false, {{0, 3, mixed, {{0, 1, 5}, {1, 1, 3}}, {}, {}, {}}, {3, 6, one, {{0, 1, 8}}, {}, {}, {}}}};
  REQUIRE(refit(*space, candidate));
  CHECK(candidate.stages[0].recompute.size() == 3);
  const auto found = neighbours(*space, candidate);
  // Three other schedules; each of six blocks may recompute; there is one ZeRO stage to choose from.
  CHECK(found.size() == 2 + 4 + 3 + 6);
  for (const Candidate& next : found) {
    CHECK(next.stages[0].end == next.stages[1].first);
    CHECK(next.stages[0].shares[0].samples + next.stages[0].shares[1].samples == 8);
  }

  // Climbing towards a cut at 5 in an artificial landscape.
  int at = 3;
  climb(*space, candidate, 100, 50, [&](const Candidate& next) -> std::optional<Cost> {
    const Cost step = 100 - 10 * (2 - std::abs(5 - next.stages[0].end));
    if (next.stages[0].shares[0].samples == 5 && next.schedule == candidate.schedule)
      at = std::max(at, next.stages[0].end);
    return step;
  });
  CHECK(at == 5);
}

TEST_CASE("with chunks every stage keeps its number of blocks, in runs along the model", "[refine_test]") {
  Candidate candidate;
  candidate.schedule = plan::ScheduleKind::OneForwardOneBackward;
  candidate.stages.resize(2);
  candidate.stages[0].first = 0;
  candidate.stages[0].end = 4;
  candidate.stages[1].first = 4;
  candidate.stages[1].end = 6;
  candidate.stages[0].recompute = {plan::Recompute::None, plan::Recompute::Selective, plan::Recompute::None,
                                   plan::Recompute::None};
  candidate.stages[1].recompute.assign(2, plan::Recompute::None);
  // Down the stages and back up: 0 0 | 1 | 1 | 0 0.
  const auto folded = with_chunks(candidate, plan::ScheduleKind::ZeroBubbleV, 2);
  REQUIRE(folded.has_value());
  CHECK(folded->stages[0].end == 2);
  CHECK(folded->stages[0].chunks == std::vector<plan::BlockRun>{{4, 6}});
  CHECK(folded->stages[1].first == 2);
  CHECK(folded->stages[1].chunks == std::vector<plan::BlockRun>{{3, 4}});
  CHECK(folded->stages[0].recompute == candidate.stages[0].recompute);
  CHECK(folded->num_chunks == 2);
  // Around the ring: 0 0 | 1 | 0 0 | 1.
  const auto interleaved = with_chunks(candidate, plan::ScheduleKind::Interleaved, 2);
  REQUIRE(interleaved.has_value());
  CHECK(interleaved->stages[0].chunks == std::vector<plan::BlockRun>{{3, 5}});
  CHECK(interleaved->stages[1].first == 2);
  CHECK(interleaved->stages[1].chunks == std::vector<plan::BlockRun>{{5, 6}});
  CHECK_FALSE(with_chunks(candidate, plan::ScheduleKind::Interleaved, 3).has_value());
}

TEST_CASE("stages with chunks recompute just as much as their hosts ask for", "[refine_test]") {
  const model::ModelGraph graph = make_chain(6, 256);
  cluster::DeviceClass device = make_device("d", std::int64_t{1} << 40);
  device.kind = cluster::DeviceKind::Cuda;
  auto resources = make_cluster({device}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  const auto cost = cost_model::make_cost_model(graph, resources, nullptr);
  Request request;
  request.cost = cost.get();
  request.global_batch = 64;
  request.capabilities = plan::kPlannable;
  const auto of_hosts = [&](Bytes host, auto&& visit) {
    resources.node_classes.front().host_memory.value = host;
    const auto small = cost_model::make_cost_model(graph, resources, nullptr);
    Request narrow = request;
    narrow.cost = small.get();
    auto space = make_search_space(narrow);
    REQUIRE(space.has_value());
    const SpanCosts spans(*small, narrow.precision, RecomputeRule::Free, {}, true);
    space->spans = &spans;
    Counts units;
    units.of[0] = 1;
    const Composition one = make_composition(space->pools, units, Axes{});
    Candidate candidate;
    candidate.schedule = plan::ScheduleKind::Interleaved;
    candidate.micro = 16;
    candidate.count = 4;
    candidate.num_chunks = 2;
    const StateChoice moved{0, plan::Offload::Activations};
    const std::vector<plan::Recompute> none(4, plan::Recompute::None);
    candidate.stages = {{0, 2, one, {{0, 1, 16}}, none, moved, {{4, 6}}},
                        {2, 4, one, {{0, 1, 16}}, none, moved, {{6, 8}}}};
    visit(*space, candidate);
  };
  const auto host_of = [](const SearchSpace& space, const Candidate& candidate, int stage) {
    return cost_model::estimate_host_memory(*space.request->cost, place_candidate(space, candidate), stage, 0);
  };
  const auto count = [](const CandidateStage& stage) {
    return std::count(stage.recompute.begin(), stage.recompute.end(), plan::Recompute::None);
  };
  Bytes all{0};
  of_hosts(Bytes(std::int64_t{1} << 40), [&](const SearchSpace& space, const Candidate& candidate) {
    all = host_of(space, candidate, 0);
    const auto fitting = refit_chunks(space, candidate);
    REQUIRE(fitting.has_value());
    CHECK(count(fitting->stages[0]) == 4);
  });
  REQUIRE(all > Bytes(0));
  // Two devices share a node. A byte too little for each: the first stage recomputes something, and no more than that
  // takes.
  of_hosts(2 * (all - Bytes(1)), [&](const SearchSpace& space, const Candidate& candidate) {
    const auto fitting = refit_chunks(space, candidate);
    REQUIRE(fitting.has_value());
    CHECK(count(fitting->stages[0]) == 3);
    CHECK(host_of(space, *fitting, 0) < all);
  });
  of_hosts(Bytes(1), [&](const SearchSpace& space, const Candidate& candidate) {
    CHECK_FALSE(refit_chunks(space, candidate).has_value());
  });
}

TEST_CASE("with chunks a block moves to the next stage or back", "[refine_test]") {
  const model::ModelGraph graph = make_chain(6, 8);
  const auto resources =
      make_cluster({make_device("d", 1 << 30)}, {1}, 2, make_link("l", 0, 1e9), make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  const auto space = make_search_space(request);
  REQUIRE(space.has_value());
  // 0 0 | 1 1 | 1 1 | 0 0.
  Candidate candidate;
  candidate.schedule = plan::ScheduleKind::ZeroBubbleV;
  candidate.stages.resize(2);
  candidate.stages[0] = {0, 2, {}, {}, std::vector<plan::Recompute>(4, plan::Recompute::None), {}, {{6, 8}}};
  candidate.stages[1] = {2, 4, {}, {}, std::vector<plan::Recompute>(4, plan::Recompute::None), {}, {{4, 6}}};
  const std::vector<Candidate> found = neighbours(*space, candidate);
  REQUIRE(found.size() == 2);
  // 0 0 | 1 1 1 | 1 1 | 0, and the mirror of it.
  CHECK(found[0].stages[0].end == 2);
  CHECK(found[0].stages[0].chunks == std::vector<plan::BlockRun>{{7, 8}});
  CHECK(found[0].stages[1].end == 5);
  CHECK(found[1].stages[0].end == 3);
  CHECK(found[1].stages[0].recompute.size() == 5);
  CHECK(found[1].stages[1].chunks == std::vector<plan::BlockRun>{{5, 6}});
}
