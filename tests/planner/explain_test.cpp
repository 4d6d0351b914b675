// Explanations: parts add up, and the verdict names what differs.
#include "planner/explain.h"

#include "tests/planner/random_instance.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;
using namespace coxswain::test_support;

TEST_CASE("why not the other plan: by how much and by which part", "[explain_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  cluster::DeviceClass gpu = make_device("gpu", 1 << 30);
  gpu.kind = cluster::DeviceKind::Cuda;
  const auto resources = make_cluster({gpu}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 2;
  const auto two = make_plan(graph, resources, {{0, 6, {{0, 0}, {0, 1}}, {1, 1}}}, 1);
  const auto one = make_plan(graph, resources, {{0, 6, {{0, 0}}, {2}, plan::Recompute::Full}}, 1);
  const auto found = explain_plan(request, two, &one);
  REQUIRE(found.has_value());
  REQUIRE(found->against.has_value());
  // 6 blocks: 2 samples x 6 x (1 + 1 + 2) against 1 x 6 x 3.
  CHECK(found->against->estimate->step.value == Approx(48));
  CHECK(found->result.estimate.step.value == Approx(18).epsilon(0.01));
  CHECK(found->against->verdict.find("slower, mostly by") != std::string::npos);
  double difference = 0;
  for (const PartDifference& part : found->against->differences) difference += (part.other - part.ours).value;
  CHECK(difference == Approx((found->against->estimate->step - found->result.estimate.step).value));
  CHECK(to_text(*found).find("why not that plan: dp1 pp1") != std::string::npos);
  CHECK(to_json(*found)["against"]["differences"].array().size() == 6);
  CHECK(to_text(*explain_plan(request, two)).find("why not that plan") == std::string::npos);
}

TEST_CASE("a given plan is told how far it is from the best and what a better one is", "[explain_test]") {
  const model::ModelGraph graph = make_chain(4, 8);
  const auto resources =
      make_cluster({make_device("dev", 1 << 30)}, {2}, 1, make_link("l", 0, 1e9), make_link("o", 0, 1));
  const FakeCost cost(graph, resources);
  Request request;
  request.cost = &cost;
  request.global_batch = 2;
  const auto alone = make_plan(graph, resources, {{0, 6, {{0, 0}}, {2}}}, 1);
  const auto found = explain_plan(request, alone);
  REQUIRE(found.has_value());
  REQUIRE(found->better.has_value());
  CHECK(found->result.plan == alone);
  CHECK(found->better->estimate.step.value == Approx(found->result.estimate.step.value / 2).epsilon(0.01));
  CHECK(found->result.optimality_gap == Approx(1).epsilon(0.01));
  CHECK(to_text(*found).find("a better plan: ") != std::string::npos);
}

TEST_CASE("a result is told as tables", "[explain_test]") {
  std::mt19937 random(2);
  const auto instance = random_instance(random);
  const auto found = find_plan(instance->request());
  REQUIRE(found.has_value());
  const std::string text = explain(*found);
  CHECK(text.find("plan: " + found->summary) == 0);
  CHECK(text.find("forward") != std::string::npos);
  CHECK(text.find("binds: ") != std::string::npos);
  CHECK(text.find("device class") != std::string::npos);
}
