// The smallest conflicting sets, on instances where they are known.
#include "planner/conflicts.h"

#include <algorithm>

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

namespace {

/// Six layers of 4 KiB with gradients and optimizer; two devices of 20,000 bytes: half the model fits, all of it not.
struct TightWorld {
  model::ModelGraph graph = make_chain(6, 16);
  cluster::ResourceGraph resources =
      make_cluster({make_device("dev", 20000)}, {2}, 1, make_link("l", 1e-6, 1e9), make_link("o", 0, 1));
  FakeCost cost{graph, resources};
  [[nodiscard]] Request request(const std::vector<std::string>& constraints) const {
    Request request;
    request.cost = &cost;
    request.global_batch = 4;
    request.capabilities = plan::kPlannable;
    request.constraints = *parse_constraints(constraints);
    return request;
  }
};

}  // namespace

TEST_CASE("constraints are listed as they are typed, and read back", "[conflicts_test]") {
  const std::vector<std::string> texts{"data=2",        "tensor=1,2",     "zero=0",         "micro=4",
                                       "samples=[3,1]", "recompute=full", "schedule=gpipe", "cuts=[3]"};
  const TightWorld world;
  Request request = world.request(texts);
  request.max_step = Seconds(0.5);
  std::vector<std::string> listed;
  for (const UserConstraint& one : list_constraints(request)) listed.push_back(one.text);
  auto expected = texts;
  expected.emplace_back("max-step-seconds=0.5");
  CHECK(listed == expected);
  const Request kept = keep_constraints(request, {{"zero", "zero=0"}});
  REQUIRE(list_constraints(kept).size() == 1);
  CHECK(kept.constraints.zero == std::vector<int>{0});
}

TEST_CASE("memory: only the constraints that conflict are named, with what is missing and what would do",
          "[conflicts_test]") {
  const TightWorld world;
  // Two stages, a tensor axis of two, or ZeRO over two replicas would each fit; the schedule has nothing to do with it.
  const auto found = find_plan(world.request({"schedule=1f1b", "tensor=1", "pipeline=1", "zero=0", "recompute=none"}));
  REQUIRE_FALSE(found.has_value());
  const Error& error = found.error();
  CHECK(error.code == ErrorCode::ResourceExhausted);
  CHECK(error.message.find("tensor=1, pipeline=1 and zero=0 do not fit together: ") == 0);
  CHECK(error.message.find("missing on dev") != std::string::npos);
  CHECK(error.hint.find("allow pipeline=2") != std::string::npos);
  CHECK(error.hint.find("allow tensor=2") != std::string::npos);
  CHECK(error.hint.find("a step") != std::string::npos);

  const auto alone = find_plan(world.request({"data=1", "pipeline=1", "tensor=1"}));
  REQUIRE_FALSE(alone.has_value());
  CHECK(alone.error().message.find("data=1, tensor=1 and pipeline=1 do not fit together: ") == 0);
}

TEST_CASE("no smaller set conflicts than the one that is named, by brute force over all subsets", "[conflicts_test]") {
  const TightWorld world;
  const std::vector<std::string> all{"data=1", "tensor=1", "pipeline=1", "zero=0", "schedule=1f1b"};
  const auto pick = [&](unsigned mask) {
    std::vector<std::string> picked;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if ((mask >> i & 1U) != 0) picked.push_back(all[i]);
    }
    return picked;
  };
  std::vector<char> feasible;
  for (unsigned mask = 0; mask < 32; ++mask)
    feasible.push_back(find_plan(world.request(pick(mask))).has_value() ? 1 : 0);
  int infeasible = 0;
  for (unsigned mask = 0; mask < 32; ++mask) {
    if (feasible[mask] != 0) continue;
    ++infeasible;
    int least = 32;
    for (unsigned subset = 0; subset < 32; ++subset) {
      if ((subset & mask) == subset && feasible[subset] == 0) least = std::min(least, __builtin_popcount(subset));
    }
    const std::string message = find_plan(world.request(pick(mask))).error().message;
    INFO(message);
    unsigned named = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (message.substr(0, message.find(':')).find(all[i]) != std::string::npos) named |= 1U << i;
    }
    CHECK(feasible[named] == 0);
    CHECK((named & mask) == named);
    CHECK(__builtin_popcount(named) == least);
  }
  CHECK(infeasible > 0);
  CHECK(infeasible < 32);
}

TEST_CASE("a pure contradiction names its members", "[conflicts_test]") {
  const TightWorld world;
  const auto found = find_plan(world.request({"micro=1", "data=2", "recompute=none"}));
  REQUIRE_FALSE(found.has_value());
  CHECK(found.error().code == ErrorCode::InvalidArgument);
  CHECK(found.error().message == "data=2 and micro=1 cannot be met together");
  CHECK(found.error().hint.find("allow micro=") != std::string::npos);
}

TEST_CASE("a limit that no plan keeps is named with what can be had", "[conflicts_test]") {
  const TightWorld world;
  Request request = world.request({"recompute=none"});
  request.max_step = Seconds(1e-3);
  const auto found = find_plan(request);
  REQUIRE_FALSE(found.has_value());
  CHECK(found.error().code == ErrorCode::ResourceExhausted);
  CHECK(found.error().message == "max-step-seconds=0.001 cannot be kept");
  CHECK(found.error().hint.find("allow ") == 0);
}

TEST_CASE("where nothing fits at all, constraints are not blamed", "[conflicts_test]") {
  TightWorld world;
  world.resources.device_classes[0].memory.value = Bytes(3000);
  const auto found = find_plan(world.request({"recompute=none"}));
  REQUIRE_FALSE(found.has_value());
  CHECK(found.error().message.find("with or without the constraints") != std::string::npos);
}

TEST_CASE("a plan's own values can be typed as constraints", "[conflicts_test]") {
  const TightWorld world;
  const auto plan =
      make_plan(world.graph, world.resources, {{0, 4, {{0, 0}}, {4}, plan::Recompute::Full}, {4, 8, {{0, 1}}, {4}}}, 1);
  CHECK(constraint_of(plan, "pipeline") == "pipeline=2");
  CHECK(constraint_of(plan, "cuts") == "cuts=[4]");
  CHECK(constraint_of(plan, "recompute") == "recompute=[0,1,2,3]");
  CHECK(constraint_of(plan, "data") == "data=1");
  CHECK(constraint_of(plan, "samples") == "samples=[4]");
}
