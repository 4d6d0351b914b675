// The law: what the search says a plan costs never exceeds what the simulator says (C22), nor do the relaxed bounds
// (C23, C24), on random plans of random instances.
#include "planner/pipeline_problem.h"

#include "planner/search.h"
#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Walks the problem from the loss side along random options; nothing when it gets stuck.
std::optional<Candidate> random_walk(PipelineProblem& problem, const StageContext& context, std::mt19937& random,
                                     std::vector<Cost>& bounds) {
  auto [state, label] = problem.start();
  Candidate candidate{0, problem.shape().schedule, context.micro, context.count, context.spread, {}};
  while (!problem.is_final(state)) {
    std::vector<PipelineProblem::Option> options;
    problem.for_each_option(state, [&](const PipelineProblem::Option& option) { options.push_back(option); });
    if (options.empty()) return std::nullopt;
    const auto option = options[std::uniform_int_distribution<std::size_t>(0, options.size() - 1)(random)];
    const auto next = problem.extend(state, label, option);
    if (!next) return std::nullopt;
    candidate.stages.insert(candidate.stages.begin(),
                            {option.first,
                             state.block,
                             context.compositions[static_cast<std::size_t>(option.composition)],
                             option.stage->shares,
                             option.stage->recompute,
                             option.stage->state,
                             {}});
    std::tie(state, label) = *next;
    bounds.push_back(problem.bound(state, label));
  }
  candidate.bound = problem.finish(state, label);
  return candidate;
}

}  // namespace

TEST_CASE("C22, C23: search cost and bounds never exceed the simulated step of random plans",
          "[pipeline_problem_test]") {
  std::mt19937 random(99);
  int walked = 0;
  for (int round = 0; round < 150; ++round) {
    const auto instance = random_instance(random);
    Request request = instance->request();
    auto space = make_search_space(request);
    REQUIRE(space.has_value());
    const SpanCosts spans(*instance->cost, request.precision, RecomputeRule::Free, {});
    space->spans = &spans;
    const auto combinations = make_combinations(*space);
    for (int walk = 0; walk < 6; ++walk) {
      const Combination& one =
          combinations[std::uniform_int_distribution<std::size_t>(0, combinations.size() - 1)(random)];
      const StageContext context = make_stage_context(*space, one);
      StageCosts costs(context);
      PipelineProblem problem(
          costs, *one.work,
          {one.schedule, one.min_stages, one.max_stages, {}, false, false, space->devices, one.total_stages, false, {}},
          kNoCost);
      std::vector<Cost> bounds{one.bound, problem.work_bound(spans.num_blocks(), space->devices)};
      const auto candidate = random_walk(problem, context, random, bounds);
      if (!candidate) continue;
      const plan::Plan plan = place_candidate(*space, *candidate);
      const Cost step = cost_model::to_ticks(Seconds(simulated_step(*instance->cost, plan)));
      INFO(summarize(plan) << " round " << round << " walk " << walk);
      CHECK(candidate->bound <= step + 1);
      for (const Cost bound : bounds) CHECK(bound <= step + 1);
      ++walked;
    }
  }
  CHECK(walked > 300);
}

TEST_CASE("C22: with free links and equal stages the bound is the step itself", "[pipeline_problem_test]") {
  const model::ModelGraph graph = make_chain(3, 8);
  cluster::DeviceClass device = make_device("gpu", std::int64_t{1} << 40, 1e9, 1e18);
  device.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({device}, {4}, 1, make_link("l", 0, 1e18), make_link("o", 0, 1e18));
  FakeCost cost(graph, resources);
  cost.forward = {0, 1, 1, 1, 1};
  Request request;
  request.cost = &cost;
  request.global_batch = 6;
  request.constraints = *parse_constraints({"dp=1", "pp=4", "micro=1", "schedule=gpipe,1f1b"});
  auto space = make_search_space(request);
  REQUIRE(space.has_value());
  const SpanCosts spans(cost, request.precision, RecomputeRule::Free, {});
  space->spans = &spans;
  for (const Combination& one : make_combinations(*space)) {
    const auto found = search_combination(*space, one, kNoCost, {});
    REQUIRE(!found.candidates.empty());
    CHECK(found.candidates.front().bound == (6 + 3) * 3'000'000'000LL);
    CHECK(simulated_step(cost, place_candidate(*space, found.candidates.front())) == Approx(27));
  }
}
