// Galvatron-2 instances in, answers in their documented form out.
#include "planner/problems/galvatron.h"

#include <algorithm>

#include "planner/problems/galvatron_cost.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

constexpr const char* kSmall = R"({
  "id": "small", "about": "two GPUs", "gpus": 2, "memory_mb": 4000, "layers": 3, "sequence": 512, "hidden": 1024,
  "global_batch": 4, "chunks": null, "max_degree": 2,
  "layer": {"parameter_mb": 64, "forward_ms": {"slope": 10, "intercept": 1},
            "activation_mb_per_sample": {"1": 400, "2": 200, "checkpoint": 10}},
  "embedding_and_head": {"forward_ms": {"slope": 20, "intercept": 2},
    "whole": {"model_states_mb": {"1": 800, "2": 400}, "activation_mb_per_sample": {"1": 80, "2": 40}},
    "first": {"model_states_mb": {"1": 400}, "activation_mb_per_sample": {"1": 40}},
    "last": {"model_states_mb": {"1": 400}, "activation_mb_per_sample": {"1": 40}}},
  "network": {"allreduce_ms_per_mb": {"1": 0, "1_0": 0, "1_1": 0, "2_0": 0.25, "2_1": 0.25},
    "p2p_ms_per_mb": {"2": 0.5}, "overlap_slowdown": 1.25,
    "allgather_ms": {"2": {"points": {"4": 3}, "slope": 0.5, "intercept": 0.125}},
    "all_to_all_ms": {"2": {"points": {}, "slope": 0.25, "intercept": 0.0625}}}})";

Json small() {
  auto json = parse_json(kSmall);
  REQUIRE(json.has_value());
  return *json;
}

}  // namespace

TEST_CASE("a Galvatron instance is read whole", "[galvatron_test]") {
  const auto instance = parse_galvatron(small(), "small.json");
  REQUIRE(instance.has_value());
  CHECK_FALSE(instance->chunks.has_value());
  CHECK(instance->checkpoint_activation_mb == 10);
  CHECK(instance->layer_activation_mb == std::map<int, double>{{1, 400}, {2, 200}});
  CHECK(instance->whole.model_states_mb.at(2) == 400);
  CHECK(instance->last.activation_mb_per_sample.at(1) == 40);
  CHECK(instance->all_gather.at(2).points.at("4") == 3);
  CHECK(instance->all_to_all.at(2).line.intercept == 0.0625);
  CHECK(instance->all_reduce_ms_per_mb.at("2_1") == 0.25);
}

TEST_CASE("a Galvatron answer adds up", "[galvatron_test]") {
  const auto solver = load_galvatron(small(), "small.json");
  REQUIRE(solver.has_value());
  const auto answer = (*solver)({});
  REQUIRE(answer.has_value());
  const Json& plan = answer->answer;
  std::int64_t layers = 0, split = 0;
  for (const Json& run : plan["layers"].array()) {
    layers += run["count"].integer();
    CHECK(plan["pp"].integer() * run["tp"].integer() * run["sp"].integer() * run["dp"].integer() == 2);
    CHECK(run["recompute"].is_bool());
  }
  for (const Json& count : plan["split"].array()) split += count.integer();
  CHECK(layers == 3);
  CHECK(split == 3);
  CHECK(4 % plan["chunks"].integer() == 0);
  CHECK(plan["embedding"]["dp"].is_integer());
  CHECK(answer->score > 0);
  CHECK(to_text((*solver)({})->answer) == to_text(plan));
}

TEST_CASE("what fits nowhere is an error", "[galvatron_test]") {
  Json json = small();
  json["memory_mb"] = 1000;
  const auto answer = (*load_galvatron(json, "small.json"))({});
  REQUIRE_FALSE(answer.has_value());
  CHECK(answer.error().code == ErrorCode::ResourceExhausted);
}

TEST_CASE("all problems of a Galvatron instance are listed", "[galvatron_test]") {
  Json json = small();
  json["gpus"] = 6;
  json["layers"] = 0;
  json["layer"]["parameter_mb"] = -1;
  json["layer"]["activation_mb_per_sample"]["half"] = 1;
  json["network"]["overlap_slowdown"] = 0.5;
  json["network"]["allgather_ms"]["2"]["slope"] = "steep";
  json["embedding_and_head"]["first"]["model_states_mb"]["1"] = true;
  const auto instance = parse_galvatron(json, "dir/bad.json");
  REQUIRE_FALSE(instance.has_value());
  std::vector<std::string> paths;
  for (const Error& problem : instance.error().details) paths.push_back(problem.path);
  std::sort(paths.begin(), paths.end());
  CHECK(paths == std::vector<std::string>{"bad.json.embedding_and_head.first.model_states_mb.1", "bad.json.gpus",
                                          "bad.json.layer.activation_mb_per_sample", "bad.json.layer.parameter_mb",
                                          "bad.json.layers", "bad.json.network.allgather_ms.2.slope",
                                          "bad.json.network.overlap_slowdown"});
}
