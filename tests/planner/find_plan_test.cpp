// Whole searches: against exhaustive enumeration on tiny instances, the law of the bounds, determinism, constraints.
#include "planner/planner.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <random>

#include "plan/program.h"
#include "planner/search.h"
#include "tests/planner/random_instance.h"
#include "tests/support/mixture_graph.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Calls `visit` with every way of cutting the blocks, choosing devices in order for the stages and splitting samples.
class Exhaustive {
 public:
  Exhaustive(const Instance& instance, std::function<void(const plan::Plan&)> visit)
      : instance_(instance), visit_(std::move(visit)) {
    for (std::size_t c = 0; c < instance.resources.device_classes.size(); ++c) {
      for (std::int64_t i = 0; i < cluster::num_devices(instance.resources, static_cast<int>(c)); ++i)
        devices_.push_back({static_cast<int>(c), i});
    }
  }

  void run() {
    for (std::int64_t micro = 1; micro <= instance_.global; ++micro) {
      if (instance_.global % micro != 0) continue;
      micro_ = micro;
      std::vector<char> used(devices_.size(), 0);
      std::vector<StageSpec> stages;
      next_stage(0, used, stages);
    }
  }

 private:
  void next_stage(int first, std::vector<char>& used, std::vector<StageSpec>& stages) {
    const int blocks = instance_.graph.num_blocks();
    if (first == blocks) {
      for (const auto schedule : {plan::ScheduleKind::GPipe, plan::ScheduleKind::OneForwardOneBackward}) {
        if (stages.size() == 1 && schedule == plan::ScheduleKind::GPipe) continue;
        visit_(
            make_plan(instance_.graph, instance_.resources, stages, instance_.global / micro_, schedule, kBucketBytes));
      }
      return;
    }
    for (int end = first + 1; end <= blocks; ++end) {
      if (first == 0 && end == 1) continue;  // the prologue is empty
      for (std::uint32_t mask = 1; mask < (1u << devices_.size()); ++mask) {
        std::vector<plan::DeviceId> chosen;
        bool free = true;
        for (std::size_t d = 0; d < devices_.size(); ++d) {
          if ((mask >> d & 1u) == 0) continue;
          free = free && used[d] == 0;
          chosen.push_back(devices_[d]);
        }
        if (!free || static_cast<std::int64_t>(chosen.size()) > micro_) continue;
        for (std::size_t d = 0; d < devices_.size(); ++d) used[d] = static_cast<char>(used[d] + (mask >> d & 1u));
        std::vector<std::int64_t> samples;
        split(first, end, chosen, samples, micro_, used, stages);
        for (std::size_t d = 0; d < devices_.size(); ++d) used[d] = static_cast<char>(used[d] - (mask >> d & 1u));
      }
    }
  }

  void split(int first, int end, const std::vector<plan::DeviceId>& chosen, std::vector<std::int64_t>& samples,
             std::int64_t left, std::vector<char>& used, std::vector<StageSpec>& stages) {
    if (samples.size() + 1 == chosen.size()) {
      samples.push_back(left);
      stages.push_back({first, end, chosen, samples, plan::Recompute::None});
      next_stage(end, used, stages);
      stages.pop_back();
      samples.pop_back();
      return;
    }
    const auto later = static_cast<std::int64_t>(chosen.size() - samples.size()) - 1;
    for (std::int64_t mine = 1; mine + later <= left; ++mine) {
      samples.push_back(mine);
      split(first, end, chosen, samples, left - mine, used, stages);
      samples.pop_back();
    }
  }

  const Instance& instance_;
  std::function<void(const plan::Plan&)> visit_;
  std::vector<plan::DeviceId> devices_;
  std::int64_t micro_ = 0;
};

}  // namespace

TEST_CASE("the plan found is the exhaustive optimum of tiny instances, and the lower bound holds", "[find_plan_test]") {
  std::mt19937 random(7);
  int exact = 0, all = 0;
  for (int round = 0; round < 40; ++round) {
    const auto instance = random_instance(random);
    double best = 1e300;
    plan::Plan best_plan;
    Exhaustive(*instance, [&](const plan::Plan& plan) {
      const double step = simulated_step(*instance->cost, plan);
      if (step < best) best_plan = plan;
      best = std::min(best, step);
    }).run();
    const auto found = find_plan(instance->request());
    REQUIRE(found.has_value());
    INFO("round " << round << ": " << found->summary << " against " << summarize(best_plan));
    CHECK(plan::validate(found->plan, instance->graph, instance->resources).empty());
    CHECK(found->estimate.step.value == Approx(simulated_step(*instance->cost, found->plan)));
    CHECK(found->lower_bound_step.value <= best * (1 + 1e-9));
    CHECK(found->estimate.step.value <= best * (1 + found->optimality_gap) * (1 + 1e-9));
    CHECK(found->estimate.step.value <= best * 1.02);
    exact += found->estimate.step.value <= best * (1 + 1e-9) ? 1 : 0;
    ++all;
  }
  INFO(exact << " of " << all << " exactly");
  CHECK(exact >= all - 4);
}

TEST_CASE("the same request gives the same bytes for any number of threads", "[find_plan_test]") {
  std::mt19937 random(21);
  for (int round = 0; round < 6; ++round) {
    const auto instance = random_instance(random);
    std::string first;
    for (const int threads : {1, 2, 5}) {
      Request request = instance->request();
      request.threads = threads;
      const auto found = find_plan(request);
      REQUIRE(found.has_value());
      const std::string bytes = to_text(to_json(*found));
      if (first.empty()) first = bytes;
      CHECK(bytes == first);
    }
  }
}

TEST_CASE("constraints hold in the plan found", "[find_plan_test]") {
  const model::ModelGraph graph = make_chain(6, 16);
  const auto resources = make_cluster({make_device("a", std::int64_t{1} << 40)}, {4}, 1, make_link("l", 1e-5, 1e9),
                                      make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  const auto find = [&](const std::vector<std::string>& texts) {
    Request request;
    request.cost = &cost;
    request.global_batch = 16;
    request.constraints = *parse_constraints(texts);
    return find_plan(request);
  };
  const auto even = find({"pp=2", "dp=2", "cuts=even", "micro=4", "schedule=gpipe"});
  REQUIRE(even.has_value());
  CHECK(even->plan.stages.size() == 2);
  CHECK(even->plan.stages[1].first_block == 4);
  CHECK(even->plan.stages[0].replicas.size() == 2);
  CHECK(even->plan.batch.micro == 4);
  CHECK(even->plan.schedule == plan::ScheduleKind::GPipe);
  CHECK(plan::validate(even->plan, graph, resources).empty());

  const auto listed = find({"cuts=[3,5]", "recompute=[2]"});
  REQUIRE(listed.has_value());
  CHECK(listed->plan.stages.size() == 3);
  CHECK(listed->plan.stages[2].first_block == 5);
  CHECK(listed->plan.stages[0].recompute[2] == plan::Recompute::Full);

  const auto samples = find({"samples=[5,3]", "pp=1"});
  REQUIRE(samples.has_value());
  CHECK(samples->plan.batch.micro == 8);
  CHECK(samples->plan.stages[0].replicas[0].samples == 5);

  const auto code = [&](const std::vector<std::string>& texts) {
    const auto found = find(texts);
    REQUIRE(!found.has_value());
    return found.error().code;
  };
  CHECK(code({"micro=5"}) == ErrorCode::InvalidArgument);
  CHECK(code({"samples=[5,6]"}) == ErrorCode::InvalidArgument);
  CHECK(code({"dp=3", "pp=2"}) == ErrorCode::InvalidArgument);
  CHECK(code({"pp=9"}) == ErrorCode::InvalidArgument);
  CHECK(code({"cuts=[99]"}) == ErrorCode::InvalidArgument);
  CHECK(code({"tp=2"}) == ErrorCode::Unimplemented);
  CHECK(code({"zero=1"}) == ErrorCode::Unimplemented);
  CHECK(code({"offload=optimizer"}) == ErrorCode::Unimplemented);
  CHECK(code({"recompute=selective"}) == ErrorCode::Unimplemented);
  Request asked;
  asked.cost = &cost;
  asked.global_batch = 16;
  asked.constraints = *parse_constraints({"pp=2", "recompute=selective", "offload=activations"});
  asked.capabilities = searched_capabilities(asked.constraints);
  const auto selective = find_plan(asked);
  REQUIRE(selective.has_value());
  for (const plan::Stage& stage : selective->plan.stages) {
    CHECK(stage.offload == plan::Offload::Activations);
    CHECK(stage.recompute == std::vector<plan::Recompute>(stage.recompute.size(), plan::Recompute::Selective));
  }
  CHECK(plan::validate(selective->plan, graph, resources).empty());
  const auto in_a_v = find({"schedule=zbv", "pp=2", "dp=1"});
  REQUIRE(in_a_v.has_value());
  CHECK(plan::validate(in_a_v->plan, graph, resources).empty());
}

TEST_CASE("unequal devices get unequal shares; a device that only slows stays unused and is named",
          "[find_plan_test]") {
  const model::ModelGraph graph = make_chain(4, 16);
  const auto resources =
      make_cluster({make_device("fast", std::int64_t{1} << 40), make_device("slow", std::int64_t{1} << 40)}, {1, 1}, 1,
                   make_link("l", 1e-5, 1e9), make_link("o", 0, 1e9));
  FakeCost cost(graph, resources);
  cost.speed = {1.0, 0.4};
  Request request;
  request.cost = &cost;
  request.global_batch = 28;
  const auto found = find_plan(request);
  REQUIRE(found.has_value());
  // All work at full use of both: 28 samples x 6 blocks x 3 s / 1.4.
  CHECK(found->estimate.step.value < 28 * 6 * 3 / 1.4 * 1.02);
  CHECK(found->lower_bound_step.value <= found->estimate.step.value);

  cost.speed = {1.0, 1e-4};
  const auto alone = find_plan(request);
  REQUIRE(alone.has_value());
  CHECK(plan::num_ranks(alone->plan) == 1);
  CHECK(alone->summary.find("unused: 1 x slow") != std::string::npos);
  request.use_all_devices = true;
  const auto both = find_plan(request);
  REQUIRE(both.has_value());
  CHECK(plan::num_ranks(both->plan) == 2);
}

TEST_CASE("a slow link between nodes is crossed by fewer bytes", "[find_plan_test]") {
  // A layer's gradients are 64 KiB, a sample's activations 512 bytes: over the slow link the pipeline wins.
  const model::ModelGraph graph = make_chain(6, 128);
  const auto bytes_across = [&](const plan::Plan& plan) {
    std::int64_t bytes = 0;
    for (const plan::Stage& stage : plan.stages) {
      if (stage.replicas.size() > 1) bytes += (stage.end_block - stage.first_block) * 128 * 128 * 4;
    }
    return bytes + static_cast<std::int64_t>(plan.stages.size() - 1) * plan.batch.global * 128 * 4 * 2;
  };
  const auto find = [&](double bandwidth) {
    const auto resources = make_cluster({make_device("a", std::int64_t{1} << 40)}, {1}, 2, make_link("l", 0, 1e10),
                                        make_link("o", 1e-6, bandwidth));
    FakeCost cost(graph, resources);
    for (double& forward : cost.forward) forward = 1e-3;
    Request request;
    request.cost = &cost;
    request.global_batch = 8;
    PlanResult result = *find_plan(request);
    add_reasons(request, result);
    return result;
  };
  const PlanResult fast = find(1e10), slow = find(2e6);
  CHECK(fast.plan.stages.size() == 1);
  CHECK(slow.plan.stages.size() == 2);
  CHECK(bytes_across(slow.plan) < bytes_across(fast.plan));
  CHECK_FALSE(slow.sensitivities.empty());
}

TEST_CASE("tight memory brings recompute, and none at all an error that says what is missing where",
          "[find_plan_test]") {
  const model::ModelGraph graph = make_chain(4, 16);
  const auto find = [&](std::int64_t memory, std::int64_t saved) {
    const auto resources =
        make_cluster({make_device("small", memory)}, {2}, 1, make_link("l", 1e-5, 1e9), make_link("o", 0, 1e9));
    FakeCost cost(graph, resources);
    cost.saved.assign(6, saved);
    Request request;
    request.cost = &cost;
    request.global_batch = 8;
    auto found = find_plan(request);
    if (found) {
      for (const plan::DeviceEstimate& device : found->estimate.devices) CHECK(device.parts.total() <= device.capacity);
    }
    return found;
  };
  const auto roomy = find(1 << 20, 10000), tight = find(40000, 10000), none = find(5000, 10000);
  REQUIRE(roomy.has_value());
  REQUIRE(tight.has_value());
  CHECK(roomy->estimate.recompute.value == 0);
  CHECK(tight->estimate.recompute.value > 0);
  CHECK(tight->estimate.step > roomy->estimate.step);
  CHECK(tight->binding_constraint.find("memory of small") == 0);
  REQUIRE(!none.has_value());
  CHECK(none.error().code == ErrorCode::ResourceExhausted);
  CHECK(none.error().message.find("missing on small") != std::string::npos);
  CHECK_FALSE(none.error().hint.empty());
}

TEST_CASE("more memory never slows the plan found", "[find_plan_test]") {
  const model::ModelGraph graph = make_chain(3, 16);
  double before = 1e300;
  for (const std::int64_t memory : {30000, 45000, 70000, 120000, 1000000}) {
    const auto resources =
        make_cluster({make_device("d", memory)}, {3}, 1, make_link("l", 1e-5, 1e6), make_link("o", 0, 1e9));
    FakeCost cost(graph, resources);
    cost.saved.assign(5, 4000);
    Request request;
    request.cost = &cost;
    request.global_batch = 12;
    const auto found = find_plan(request);
    if (!found) continue;
    CHECK(found->estimate.step.value <= before * (1 + 1e-9));
    before = found->estimate.step.value;
  }
  CHECK(before < 1e300);
}

TEST_CASE("a static batch fixes the samples of every replica, coupled operators keep a micro-batch whole",
          "[find_plan_test]") {
  model::ModelGraph graph = make_chain(3, 16);
  const auto resources = make_cluster({make_device("d", std::int64_t{1} << 40)}, {3}, 1, make_link("l", 1e-5, 1e6),
                                      make_link("o", 0, 1e9));
  {
    model::ModelGraph baked = graph;
    baked.batch_symbol = "";
    baked.static_batch = 2;
    for (model::Value& value : baked.values) {
      for (model::Dim& dim : value.dims) dim = dim.substitute("batch", model::Dim(2));
    }
    const FakeCost cost(baked, resources);
    Request request;
    request.cost = &cost;
    request.global_batch = 8;
    const auto found = find_plan(request);
    REQUIRE(found.has_value());
    for (const plan::Stage& stage : found->plan.stages) {
      for (const plan::Replica& replica : stage.replicas) CHECK(replica.samples == 2);
    }
  }
  graph.coupled.push_back({0, "batch norm"});
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  const auto found = find_plan(request);
  REQUIRE(found.has_value());
  for (const plan::Stage& stage : found->plan.stages) CHECK(stage.replicas.size() == 1);
}

TEST_CASE("a model whose samples are mixed by sums is split over replicas that hold the experts together",
          "[find_plan_test]") {
  const model::ModelGraph graph = make_mixture_graph(0.1);
  REQUIRE(graph.coupled.size() == 1);
  const auto resources = make_cluster({make_device("d", std::int64_t{1} << 40)}, {4}, 1, make_link("l", 1e-5, 1e9),
                                      make_link("o", 0, 1e9));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  request.capabilities = plan::kPlannable;
  for (const int expert : {1, 2}) {
    request.constraints.expert = {expert};
    const auto found = find_plan(request);
    INFO((found ? std::string() : to_text(found.error())));
    REQUIRE(found.has_value());
    CHECK(plan::validate(found->plan, graph, resources, plan::kPlannable).empty());
    CHECK(found->plan.batch.count == 1);
    for (const plan::Stage& stage : found->plan.stages)
      CHECK(stage.replicas.size() == static_cast<std::size_t>(expert));
  }
  request.constraints.micro = {4};
  const auto refused = find_plan(request);
  REQUIRE_FALSE(refused.has_value());
  CHECK(to_text(refused.error()).find("mixes samples") != std::string::npos);
}

TEST_CASE("a search whose stop is requested while it runs ends as stopped", "[find_plan_test]") {
  // Requests it at the first update that is costed, and counts those that still are.
  class StopsAtFirst final : public FakeCost {
   public:
    using FakeCost::FakeCost;
    Seconds estimate_optimizer(std::int64_t parameters, int device_class) const override {
      stop.request_stop();
      ++calls;
      return FakeCost::estimate_optimizer(parameters, device_class);
    }
    mutable std::stop_source stop;
    mutable std::atomic<int> calls = 0;
  };
  const model::ModelGraph graph = make_chain(3, 16);
  const auto resources = make_cluster({make_device("d", std::int64_t{1} << 40)}, {3}, 1, make_link("l", 1e-5, 1e6),
                                      make_link("o", 0, 1e9));
  const StopsAtFirst cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 8;
  REQUIRE(find_plan(request).has_value());
  const int whole = cost.calls.exchange(0);
  cost.stop = {};
  request.stop = cost.stop.get_token();
  const auto found = find_plan(request);
  REQUIRE_FALSE(found.has_value());
  CHECK(found.error().code == ErrorCode::Cancelled);
  CHECK(cost.calls < whole / 2);
}
