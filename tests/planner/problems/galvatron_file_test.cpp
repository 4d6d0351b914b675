// Galvatron's own profiles, in the forms that it documents.
#include "planner/problems/galvatron_file.h"

#include "common/bytes_io.h"
#include "planner/problems/galvatron.h"
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

Json arguments() {
  return parsed(R"({"num_nodes": 1, "num_gpus_per_node": 4, "memory_constraint": 10, "global_batch_size": 8,
    "num_layers": 3, "hidden_size": 1024, "seq_length": 512, "max_tp_deg": 2, "max_sp_deg": 2, "default_dp_type": "zero2"})");
}

GalvatronProfiles profiles() {
  GalvatronProfiles files;
  // Times of a sample in batches of 1, 2, 3: 12, 11, 32/3 ms, so that a batch of n takes 10 n + 2.
  files.time = parsed(R"({"layernum[2]_bsz1_seq512": 99, "layertype_0_bsz1_seq512": 12, "layertype_0_bsz2_seq512": 11,
    "layertype_0_bsz3_seq512": 10.666666666666666, "layertype_0_bsz1_seq1024": 50, "layertype_other_bsz4_seq512": 20})");
  files.memory = parsed(R"({"1_1_8_sp": {}, "layertype_0_sp": {"512": {"parameter_size": 64,
      "tp_activation_per_bsz_dict": {"1": 400, "2": 200, "checkpoint": 10}}},
    "other_memory_pp_off_sp": {"512": {"model_states": {"1": 800, "2": 400}, "activation": {"1": 80, "2": 40}}},
    "other_memory_pp_on_first_sp": {"512": {"model_states": {"1": 500}, "activation": {"1": 50}}},
    "other_memory_pp_on_last": {"512": {"model_states": {"1": 300}, "activation": {"1": 30}}}})");
  files.all_reduce =
      parsed(R"({"allreduce_size_4_consec_1": 10, "allreduce_size_2_consec_1": 20, "allreduce_size_2_consec_0": 4})");
  files.p2p = parsed(R"({"pp_size_2": 5, "pp_size_4": 2})");
  files.overlap = parsed(R"({"overlap_coe": 1.25})");
  files.messages = parsed(R"({"allreduce_size_2_1MB_time": 3, "allreduce_size_2_2MB_time": 4,
    "all2all_size_2_1MB_time": 2, "all2all_size_2_3MB_time": 6})");
  return files;
}

}  // namespace

TEST_CASE("Galvatron's profiles become an instance", "[galvatron_file_test]") {
  const auto json = convert_galvatron(arguments(), profiles());
  REQUIRE(json);
  const auto instance = parse_galvatron(*json, "galvatron.json");
  REQUIRE(instance);
  CHECK(instance->gpus == 4);
  CHECK(instance->memory_mb == 10240);
  CHECK(!instance->chunks);
  CHECK(instance->max_degree == 2);
  CHECK(instance->layer_forward_ms.slope == Approx(10));
  CHECK(instance->layer_forward_ms.intercept == Approx(2));
  CHECK(instance->end_forward_ms.slope == Approx(20));  // one batch: in proportion
  CHECK(instance->end_forward_ms.intercept == 0);
  CHECK(instance->layer_parameter_mb == 64);
  CHECK(instance->checkpoint_activation_mb == 10);
  CHECK(instance->whole.model_states_mb == std::map<int, double>{{1, 800}, {2, 400}});
  CHECK(instance->last.activation_mb_per_sample.at(1) == 30);  // without sequence parallel where there is no other
  CHECK(instance->all_reduce_ms_per_mb ==
        std::map<std::string, double>{
            {"1", 0}, {"1_0", 0}, {"1_1", 0}, {"2_0", 0.25}, {"2_1", 0.05}, {"4", 0.1}, {"4_0", 0.1}, {"4_1", 0.1}});
  CHECK(instance->p2p_ms_per_mb == std::map<int, double>{{2, 0.2}, {4, 0.5}});
  CHECK(instance->overlap_slowdown == 1.25);
  const GalvatronMessages& gather = instance->all_gather.at(2);
  CHECK(gather.points == std::map<std::string, double>{{"1", 1.5}, {"2", 2}});
  CHECK(gather.line.slope == Approx(0.5));
  CHECK(gather.line.intercept == Approx(1));
  CHECK(instance->all_to_all.at(2).line.slope == Approx(2));
  CHECK(instance->all_to_all.at(2).line.intercept == Approx(0).margin(1e-12));
}

TEST_CASE("a Galvatron search is read from its files", "[galvatron_file_test]") {
  const TempDir folder;
  Json json = arguments();
  CHECK(!is_galvatron_search(json));
  const GalvatronProfiles files = profiles();
  for (const auto& [key, name, content] : {std::tuple{"time_profiling_path", "time.json", &files.time},
                                           {"memory_profiling_path", "memory.json", &files.memory},
                                           {"allreduce_bandwidth_config_path", "allreduce.json", &files.all_reduce},
                                           {"p2p_bandwidth_config_path", "p2p.json", &files.p2p},
                                           {"overlap_coe_path", "overlap.json", &files.overlap},
                                           {"sp_time_path", "sp.json", &files.messages}}) {
    json[key] = name;
    REQUIRE(write_file(folder / name, to_text(*content)));
  }
  CHECK(is_galvatron_search(json));
  const auto solver = load_galvatron(json, folder / "galvatron.json");
  REQUIRE(solver);
  const auto answer = (*solver)({});
  REQUIRE(answer);
  CHECK(answer->unit == "samples per second");
  CHECK(answer->step_seconds == Approx(8 / answer->score));
  json["sp_time_path"] = "nowhere.json";
  json["p2p_bandwidth_config_path"] = 7;
  const auto missing = load_galvatron(json, folder / "galvatron.json");
  REQUIRE(!missing);
  CHECK(missing.error().details.size() == 2);
}

TEST_CASE("every problem of Galvatron's profiles is listed", "[galvatron_file_test]") {
  Json json = arguments();
  json["seq_length"] = 2048;
  json["max_sp_deg"] = 1;
  GalvatronProfiles files = profiles();
  files.all_reduce.object().erase("allreduce_size_2_consec_0");
  files.p2p["pp_size_2"] = 0;
  files.overlap = Json();
  files.messages.object().erase("all2all_size_2_1MB_time");
  files.messages.object().erase("all2all_size_2_3MB_time");
  const auto instance = convert_galvatron(json, files);
  REQUIRE(!instance);
  const std::string text = to_text(instance.error());
  for (const char* words : {"max_sp_deg", "layertype_0_bsz#_seq# for sequence 2048", "sequences 512, 1024",
                            "memory_profiling_path.other_memory_pp_off_sp.2048", "allreduce_size_2_consec_0",
                            "pp_size_2", "overlap_coe", "all2all_size_#_#MB_time for 2 GPUs"})
    CHECK(text.find(words) != std::string::npos);
}
