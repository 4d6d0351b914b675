// From Metis's files on disk to an answer.
#include "planner/problems/metis.h"

#include "common/bytes_io.h"
#include "tests/planner/problems/metis_builder.h"
#include "tests/support/temp_dir.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

std::string profile(double ms) {
  const std::string list = "[" + std::to_string(ms) + ", " + std::to_string(ms) + "]";
  return R"({"model": {"parameters": {"parameters_per_layer_bytes": [0, 0]}}, "execution_time": {"batch_generator_time_ms": 0.5, "layer_compute_total_ms": )" +
         list + R"(}, "execution_memory": {"layer_memory_total_mb": [1, 1]}})";
}

}  // namespace

TEST_CASE("Metis: files become an answer with its bound and what was interpolated", "[metis_test]") {
  const TempDir folder;
  const auto write = [&](const std::string& name, const std::string& text) {
    REQUIRE(write_file(folder.path() / name, text));
  };
  write("hosts", "one slots=1\ntwo slots=1\n");
  write("cluster.json",
        R"({"one": {"instance_type": "FAST", "inter_bandwidth": 1000, "intra_bandwidth": 1000, "memory": 1},
            "two": {"instance_type": "SLOW", "inter_bandwidth": 1000, "intra_bandwidth": 1000, "memory": 1}})");
  std::filesystem::create_directory(folder.path() / "profiles");
  for (const int batch : {1, 2, 4, 8}) {
    write("profiles/DeviceType.FAST_tp1_bs" + std::to_string(batch) + ".json", profile(batch));
    write("profiles/DeviceType.SLOW_tp1_bs" + std::to_string(batch) + ".json", profile(3.0 * batch));
  }
  write("profiles/notes.json", "{}");  // not a profile
  Json json = *parse_json(R"({"gbs": 8, "sequence_length": 1, "hidden_size": 1, "vocab_size": 1,
    "hostfile_path": "hosts", "clusterfile_path": "cluster.json", "profile_data_path": "profiles"})");
  const auto solver = load_metis(json, folder.path() / "metis.json");
  REQUIRE(solver);
  const auto answer = (*solver)({});
  REQUIRE(answer);
  // 6 samples on the fast device and 2 on the one of a third of its speed: 12 ms, and one batch to make.
  CHECK(answer->answer == *parse_json(R"({"micro_batches": 1, "micro_batch": 8, "stages": [{"layers": [0, 1], "tp": 1,
    "replicas": [{"device_type": "FAST", "count": 1, "samples": 6, "devices": [0, 0]},
                 {"device_type": "SLOW", "count": 1, "samples": 2, "devices": [0, 0]}]}]})"));
  CHECK(answer->score == Approx(0.0125));
  CHECK(answer->step_seconds == answer->score);
  REQUIRE(answer->lower_bound_step_seconds);
  CHECK(*answer->lower_bound_step_seconds == Approx(0.0125));
  REQUIRE(answer->notes.size() == 1);
  CHECK(answer->notes[0] == "FAST tp 1 with 6 samples was not measured: interpolated between batches 4 and 8");

  json["profile_data_path"] = "nowhere";
  json["hostfile_path"] = Json();
  const auto missing = load_metis(json, folder.path() / "metis.json");
  REQUIRE(!missing);
  CHECK(missing.error().details.size() == 2);
}

TEST_CASE("Metis: what fits nowhere says what would help", "[metis_test]") {
  MetisInstance instance = make_metis();
  instance.points[{0, 1}][1] = make_point({1, 1, 1}, {2000, 2000, 2000}, 0);
  const auto answer = solve_metis(instance, {});
  REQUIRE(!answer);
  CHECK(answer.error().code == ErrorCode::ResourceExhausted);
  CHECK(!answer.error().hint.empty());
}

TEST_CASE("Metis: one batch measured says that memory in flight is not counted", "[metis_test]") {
  MetisInstance instance = make_metis();
  instance.types = {{"FAST", 10, {2}, 1e9, 1e9}};
  instance.optimizer_ms = {0};
  instance.points[{0, 1}][1] = make_point({1, 1, 1}, {5, 5, 5}, 0);
  instance.global_batch = 4;
  const auto answer = solve_metis(instance, {});
  REQUIRE(answer);
  // Two layers of 5 MB fill a device of 10, so that three need two stages.
  CHECK(answer->answer["stages"].array().size() == 2);
  REQUIRE(answer->notes.size() == 1);
  CHECK(answer->notes[0].find("not counted") != std::string::npos);
}
