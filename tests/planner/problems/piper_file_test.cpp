// Piper's own file form, as its documentation gives it.
#include "planner/problems/piper_file.h"

#include "planner/problems/piper.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

Json two_nodes() {
  return *parse_json(R"({
    "maxMemoryPerDevice": 100.0, "maxDevices": 2, "mbsInBatch": 4, "bandwidth": 10.0, "remark": "kept out",
    "nodes": [
      {"id": 7, "name": "first", "TMPCs": {
        "1": [{"id": "vanilla", "timePerSample": 1.0, "parameterSize": 2.0, "memoryUsageA": 3.0, "memoryUsageB": 4.0,
               "syncTimeFw": {}, "syncTimeBw": {"9": 5.0}}],
        "2": [{"id": "activation recomp", "timePerSample": 6.0, "parameterSize": 7.0, "memoryUsageA": 8.0,
               "memoryUsageB": 9.0, "syncTimeFw": {}, "syncTimeBw": {"9": 10.0}}]}},
      {"id": 9, "TMPCs": {
        "1": [{"id": "vanilla", "timePerSample": 11.0, "parameterSize": 12.0, "memoryUsageA": 13.0,
               "memoryUsageB": 14.0, "syncTimeFw": {"7": 15.0}, "syncTimeBw": {}}]}}],
    "edges": [{"sourceId": 7, "destId": 9, "communicationCost": 16.0}]})");
}

}  // namespace

TEST_CASE("Piper's own file becomes an instance", "[piper_file_test]") {
  CHECK(is_piper_file(two_nodes()));
  CHECK(!is_piper_file(*parse_json(R"({"devices": 2, "model_file": "m.json"})")));
  const auto documents = convert_piper_file(two_nodes());
  REQUIRE(documents);
  const auto instance = parse_piper(documents->instance, documents->model);
  REQUIRE(instance);
  CHECK(instance->devices == 2);
  CHECK(instance->micro_batches == 4);
  CHECK(instance->memory_bytes == 100);
  CHECK(instance->bytes_per_second == 10);
  REQUIRE(instance->nodes.size() == 2);
  const PiperOption& plain = instance->nodes[0].options[0];
  CHECK(plain.tp == 1);
  CHECK(!plain.recompute);
  CHECK(plain.seconds == 1);
  CHECK(plain.parameter_bytes == 2);
  CHECK(plain.stash_bytes == 3);
  CHECK(plain.fixed_bytes == 4);
  CHECK(plain.sync_out == std::vector<double>{5});  // Bw: by the node behind the outgoing edge
  CHECK(instance->nodes[0].options[1].tp == 2);
  CHECK(instance->nodes[0].options[1].recompute);
  CHECK(instance->nodes[1].options[0].sync_in == std::vector<double>{15});
  CHECK(instance->edges[0].bytes == 16);
}

TEST_CASE("Piper's own file solves without a second file", "[piper_file_test]") {
  const auto solver = load_piper(two_nodes(), "nowhere/file.json");
  REQUIRE(solver);
  const auto answer = (*solver)({});
  REQUIRE(answer);
  // Both nodes on one device: 12; as two replicas 6 and 4 (2 - 1) (2 + 12) / 2 / 4 / 10 more; cut between the nodes
  // the second stage alone takes 11 and 2 (16 + 15) / 10.
  CHECK(answer->score == Approx(6 + 4 * 14.0 / 2 / 4 / 10));
  CHECK(answer->step_seconds == Approx(4 * answer->score));
  REQUIRE(answer->lower_bound_step_seconds);
  CHECK(*answer->lower_bound_step_seconds == Approx(answer->step_seconds).epsilon(1e-11));
}

TEST_CASE("the batch may have its documented name", "[piper_file_test]") {
  Json json = two_nodes();
  json.object().erase("mbsInBatch");
  json["maxBatchSize"] = 8;
  CHECK(convert_piper_file(json)->instance["microbatches"].integer() == 8);
}

TEST_CASE("every problem of a Piper file is listed", "[piper_file_test]") {
  Json json = two_nodes();
  json.object().erase("bandwidth");
  json["nodes"].array()[0]["TMPCs"]["one"] = JsonArray{};
  json["nodes"].array()[1]["TMPCs"]["1"].array()[0]["syncTimeFw"]["7"] = "much";
  json["edges"].array()[0].object().erase("destId");
  const auto documents = convert_piper_file(json);
  REQUIRE(!documents);
  CHECK(documents.error().details.size() == 4);
  const std::string text = to_text(documents.error());
  for (const char* words : {"bandwidth", "nodes[0].TMPCs.one", "nodes[1].TMPCs.1[0].syncTimeFw.7", "edges[0].destId"})
    CHECK(text.find(words) != std::string::npos);
}
