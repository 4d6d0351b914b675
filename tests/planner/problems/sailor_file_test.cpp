// Sailor's own inputs, in the forms of the files that it ships.
#include "planner/problems/sailor_file.h"

#include "common/bytes_io.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

Json parsed(const char* text) {
  auto json = parse_json(text);
  REQUIRE(json);
  return *json;
}

SailorFiles files() {
  SailorFiles files;
  files.training = parsed(R"({"global_batch_size": 8, "model": "M", "num_all_layers": 2, "type": "gpt2"})");
  files.cluster = parsed(R"({"a": {"gpus_per_node": 4, "mem_per_gpu": 42949672960}, "b": {"mem_per_gpu": 17179869184},
    "zone": "x"})");
  files.quotas = parsed(R"({"a": {"x": 2, "y": 1}, "b": {"x": 3, "y": 0}})");
  files.sizes = parsed(R"({"M": {"1": {"0": {"params_floats": 5, "act_output_floats": 6, "act_mem_floats": 7},
    "1": {"params_floats": 8, "act_output_floats": 9, "act_mem_floats": 10, "params_bytes": 32}}}})");
  const char* curves = R"({"x": {
    "a": {"1": {"x": {"a": {"1": [[1, 2, 3], 50]}}, "y": {"a": {"1": [[4, 5, 6], 40]}}},
          "2": {"x": {"a": {"2": [[7, 8, 9], 60]}}}},
    "b": {"1": {"x": {"b": {"1": [[0.5, 0.25, 10], 55]}}}}},
    "y": {"a": {"1": {"x": {"a": {"1": [[11, 12, 13], 30]}}, "y": {"a": {"1": [[14, 15, 16], 45]}}}}}})";
  files.network = parsed(curves);
  files.traffic = parsed(R"({"x": {"x": 0, "y": 0.01}, "y": {"x": 0.02, "y": 0}})");
  files.profiles["a"] = parsed(R"({"1": {"1": {"0": [0.25, 0.5, 0.125], "1": [1, 2, 0.5]}}})");
  files.profiles["b"] = parsed(R"({"2": {"1": {"0": [4e-06, 8, 16], "1": [4, 8, 16]}}})");
  return files;
}

}  // namespace

TEST_CASE("Sailor's files become an instance", "[sailor_file_test]") {
  const auto documents = convert_sailor(parsed(R"({"usd_per_hour": {"a": 3.5}})"), files());
  REQUIRE(documents);
  const auto instance = parse_sailor(documents->instance, documents->texts);
  REQUIRE(instance);
  CHECK(instance->num_layers == 2);
  CHECK(instance->global_batch == 8);
  CHECK(!instance->minimise_cost);
  REQUIRE(instance->gpus.size() == 2);
  CHECK(instance->gpus[0].memory_bytes == 42949672960.0);
  CHECK(instance->gpus[0].usd_per_hour == 3.5);
  CHECK(instance->gpus[1].usd_per_hour == 0);
  REQUIRE(instance->pools.size() == 3);  // none of b in y
  CHECK(instance->layers.at(1)[1]->parameters == 8);
  CHECK(instance->layers.at(1)[1]->activation_numbers == 10);
  CHECK(instance->profiles.at({0, 1, 1})[0]->compute_seconds == 0.75);
  CHECK(instance->profiles.at({1, 2, 1})[0]->compute_seconds == 8 + 4e-06);
  CHECK(instance->profiles.at({1, 2, 1})[1]->update_seconds == 16);
  const auto c0 = [&](SailorEnd from, SailorEnd to) { return instance->links.at({from, to}).c0; };
  const int x = instance->zones[0] == "x" ? 0 : 1, y = 1 - x;
  CHECK(c0({x, 0, 1}, {x, 0, 1}) == 3);
  CHECK(c0({x, 0, 2}, {x, 0, 2}) == 9);
  CHECK(c0({x, 0, 2}, {x, 0, 1}) == 3);  // that of the smaller number
  CHECK(c0({x, 0, 2}, {y, 0, 1}) == 6);
  CHECK(c0({x, 0, 1}, {x, 1, 1}) == 3);   // of 50 and 55 the slower
  CHECK(c0({x, 0, 2}, {x, 1, 1}) == 10);  // of 60 and 55
  CHECK(instance->links.count({SailorEnd{x, 1, 2}, SailorEnd{x, 1, 2}}) == 0);
  CHECK(instance->usd_per_gb.at({x, y}) == 0.01);
}

TEST_CASE("Sailor's planner is read from its files", "[sailor_file_test]") {
  const TempDir folder;
  SailorFiles given = files();
  given.quotas = parsed(R"({"a": {"x": 1}})");
  const auto write = [&](const std::string& name, const Json& json) {
    REQUIRE(write_file(folder / name, to_text(json)));
  };
  std::filesystem::create_directories(folder / "profiles" / "a");
  write("profiles/a/profile.json", given.profiles["a"]);
  Json json;
  for (const auto& [key, name, content] : {std::tuple{"training_config_json", "training.json", &given.training},
                                           {"basic_cluster_config_json", "cluster.json", &given.cluster},
                                           {"quotas_dict", "quotas.json", &given.quotas},
                                           {"llm_info", "llm_info.json", &given.sizes},
                                           {"network_coeff_path", "network.json", &given.network},
                                           {"communication_cost", "cost.json", &given.traffic}}) {
    json[key] = name;
    write(name, *content);
  }
  CHECK(is_sailor_search(json));
  CHECK(!is_sailor_search(parsed(R"({"layers": 2, "data": {}})")));
  json["sailor_profile_file_dir"] = "profiles";
  const auto solver = load_sailor(json, folder / "sailor.json");
  REQUIRE(solver);
  const auto answer = (*solver)({});
  REQUIRE(answer);
  // One GPU, micro-batch 1: 8 x (0.75 + 3) s and the first layer's update.
  CHECK(answer->score == Approx(1 / (8 * 3.75 + 0.125)));

  std::filesystem::remove(folder / "profiles" / "a" / "profile.json");
  json["quotas_dict"] = Json();
  CHECK(!load_sailor(json, folder / "sailor.json"));
  json["quotas_dict"] = "quotas.json";
  json["llm_info"] = "nowhere.json";
  const auto missing = load_sailor(json, folder / "sailor.json");
  REQUIRE(!missing);
  CHECK(missing.error().details.size() == 2);
}

TEST_CASE("every problem of Sailor's files is listed", "[sailor_file_test]") {
  SailorFiles bad = files();
  bad.training.object().erase("global_batch_size");
  bad.training["model"] = "N";
  bad.cluster.object().erase("b");
  bad.profiles["a"]["1"]["1"]["0"] = JsonArray{1, 2};
  bad.network["x"]["a"]["1"]["x"]["a"]["1"] = 7;
  bad.traffic["x"].object().erase("y");
  const auto documents = convert_sailor(JsonObject{}, bad);
  REQUIRE(!documents);
  const std::string text = to_text(documents.error());
  for (const char* words :
       {"global_batch_size", "the layers of N", "basic_cluster_config_json.b", "sailor_profile_file_dir.a.1.1.0",
        "network_coeff_path.x.a.1.x.a.1", "communication_cost.x.y"})
    CHECK(text.find(words) != std::string::npos);
}
