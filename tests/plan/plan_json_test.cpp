#include "tests/support/graph_builder.h"
#include "tests/support/plan_builder.h"

#include <catch2/catch.hpp>

namespace coxswain::plan {
namespace {

Plan sample_plan() {
  return make_plan(make_chain_graph(), make_cpu_cluster({3}), {.cuts = {3}, .samples = {{3, 1}, {4}}, .count = 2});
}

TEST_CASE("a plan reads back from its text, byte for byte", "[plan_json]") {
  const Plan plan = sample_plan();
  for (const int indent : {0, 2}) {
    const std::string text = coxswain::to_text(to_json(plan), indent);
    const auto json = parse_json(text);
    REQUIRE(json);
    const auto read = plan_from_json(*json);
    REQUIRE(read);
    CHECK(*read == plan);
    CHECK(coxswain::to_text(to_json(*read), indent) == text);
  }
}

TEST_CASE("the text of a plan is the documented one", "[plan_json]") {
  Plan plan;
  plan.model_hash = "m";
  plan.cluster_hash = "c";
  plan.batch = {8, 4, 2};
  Stage stage;
  stage.end_block = 2;
  stage.recompute = {Recompute::None, Recompute::Full};
  stage.bucket_starts = {1, 0};
  stage.replicas.push_back({{{0, 5}}, 1, 1, 1, 4});
  plan.stages.push_back(stage);
  plan.roles.push_back({0, {0}, {{ActionKind::Forward, 0, 0, 2}, {ActionKind::ReduceNorm}}});
  CHECK(
      coxswain::to_text(to_json(plan)) ==
      R"json({"backend":"host","batch":{"count":2,"global":8,"micro":4},"cluster_hash":"c","format_version":1,"model_hash":"m",)json"
      R"json("precision":"float32","receive_credits":2,"roles":[{"actions":["F0[0,2)","REDUCE_NORM"],"replicas":[0],"stage":0}],)json"
      R"json("schedule":"1f1b","stages":[{"bucket_starts":[1,0],"end_block":2,"first_block":0,"offload":"none",)json"
      R"json("recompute":["none","full"],"replicas":[{"context":1,"devices":[{"device_class":0,"index":5}],"expert":1,"samples":4,"tensor":1}],"zero_stage":0}]})json");
}

TEST_CASE("chunks are written where they are used, and read back", "[plan_json]") {
  CHECK(coxswain::to_text(to_json(sample_plan())).find("chunks") == std::string::npos);
  const Plan plan =
      make_plan(make_chain_graph(), make_cpu_cluster({2}),
                {.cuts = {1, 2, 4}, .samples = {{4}, {4}}, .schedule = ScheduleKind::ZeroBubbleV, .num_chunks = 2});
  Json json = to_json(plan);
  const std::string text = coxswain::to_text(json);
  CHECK(text.find(R"("chunks":[{"end_block":6,"first_block":4}])") != std::string::npos);
  CHECK(text.find(R"("RECV_F1.1")") != std::string::npos);
  const auto read = plan_from_json(json);
  REQUIRE(read);
  CHECK(*read == plan);
  json["stages"].array()[0]["chunks"].array()[0]["end_block"] = Json("six");
  const auto bad = plan_from_json(json);
  REQUIRE_FALSE(bad);
  CHECK(coxswain::to_text(bad.error()).find("stages[0].chunks[0].end_block") != std::string::npos);
}

TEST_CASE("every problem of form is reported with its path", "[plan_json]") {
  Json json = to_json(sample_plan());
  json["schedule"] = Json("fastest");
  json["surprise"] = Json(1);
  json["batch"]["count"] = Json("two");
  json["stages"].array()[1]["recompute"].array()[0] = Json("half");
  json["stages"].array()[1]["replicas"].array()[0]["devices"].array()[0]["index"] = Json(-1);
  json["roles"].array()[0]["actions"].array()[3] = Json("F1[0,");
  json["roles"].array()[0].object().erase("stage");
  const auto read = plan_from_json(json);
  REQUIRE_FALSE(read);
  CHECK(read.error().code == ErrorCode::InvalidArgument);
  std::vector<std::string> paths;
  for (const Error& detail : read.error().details) paths.push_back(detail.path);
  const std::vector<std::string> expected{"plan.batch.count",
                                          "plan.stages[1].replicas[0].devices[0].index",
                                          "plan.stages[1].recompute[0]",
                                          "plan.roles[0].actions[3]",
                                          "plan.roles[0].stage",
                                          "plan.schedule",
                                          "plan.surprise"};
  CHECK_THAT(paths, Catch::UnorderedEquals(expected));
}

TEST_CASE("what is no plan at all is an error", "[plan_json]") {
  CHECK_FALSE(plan_from_json(Json(3)));
  CHECK_FALSE(plan_from_json(Json(JsonObject{})));
}

TEST_CASE("the hash follows the content", "[plan_json]") {
  const Plan plan = sample_plan();
  Plan other = plan;
  CHECK(plan_hash(other) == plan_hash(plan));
  CHECK(plan_hash(plan).size() == 64);
  other.receive_credits = 3;
  CHECK(plan_hash(other) != plan_hash(plan));
}

}  // namespace
}  // namespace coxswain::plan
