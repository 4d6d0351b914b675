// Metis's files as its documentation describes them.
#include "planner/problems/metis.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::planner;

namespace {

Json arguments() {
  return *parse_json(R"({"gbs": 8, "sequence_length": 10, "hidden_size": 4, "vocab_size": 50, "model_name": "GPT"})");
}

std::string profile(double ms, double mb, double bytes, double optimizer = 3) {
  const auto list = [](double value) { return "[" + std::to_string(value) + ", " + std::to_string(2 * value) + "]"; };
  return R"({"model": {"model_name": "GPT3", "num_layers": 2, "parameters": {"total_parameters_bytes": 1,
    "parameters_per_layer_bytes": )" +
         list(bytes) + R"(}}, "execution_time": {"total_time_ms": 99, "forward_backward_time_ms": )" +
         std::to_string(3 * ms + 5) + R"(, "batch_generator_time_ms": 0.5, "optimizer_time_ms": )" +
         std::to_string(optimizer) + R"(, "layer_compute_total_ms": )" + list(ms) +
         R"(}, "execution_memory": {"total_memory": 7, "layer_memory_total_mb": )" + list(mb) + "}}";
}

MetisTexts texts() {
  MetisTexts texts;
  texts.hosts = "10.0.0.1 slots=8\n10.0.0.2 4   # the older form\n\n10.0.0.3 slots=16\n";
  texts.cluster = R"({
    "10.0.0.1": {"instance_type": "A100", "inter_bandwidth": 312500000.0, "intra_bandwidth": 5312500000.0, "memory": 80},
    "10.0.0.2": {"instance_type": "t4", "inter_bandwidth": 10, "intra_bandwidth": 46, "memory": 15},
    "10.0.0.3": {"instance_type": "a100", "inter_bandwidth": 212500000.0, "intra_bandwidth": 5312500000.0, "memory": 40},
    "10.0.0.9": {"instance_type": "V100", "inter_bandwidth": 1, "intra_bandwidth": 1, "memory": 16}})";
  texts.profiles = {{"DeviceType.A100_tp2_bs4.json", profile(10, 100, 500)},
                    {"DeviceType.A100_tp1_bs2.json", profile(15, 150, 1000, 6)},
                    {"DeviceType.T4_tp1_bs1.json", profile(40, 90, 1000, 20)},
                    {"DeviceType.P100_tp1_bs1.json", profile(1, 1, 1)}};
  return texts;
}

}  // namespace

TEST_CASE("Metis: hosts become types, profiles points", "[metis_instance_test]") {
  const auto instance = parse_metis(arguments(), texts());
  REQUIRE(instance);
  CHECK(instance->num_layers == 2);
  CHECK(instance->global_batch == 8);
  REQUIRE(instance->types.size() == 2);
  const MetisType& a100 = instance->types[0];
  CHECK(a100.name == "A100");
  CHECK(a100.hosts == std::vector<int>{8, 16});
  CHECK(a100.memory_mb == 40 * 1024);                  // the smaller
  CHECK(a100.network_bytes_per_ms == Approx(212500));  // bytes a second, the slower
  CHECK(a100.host_bytes_per_ms == Approx(5312500));
  CHECK(instance->types[1].name == "T4");
  CHECK(instance->types[1].network_bytes_per_ms == Approx(10 * 1048576.0));  // Metis's own unit
  CHECK(instance->points.size() == 3);
  const MetisPoint& point = instance->points.at({0, 2}).at(4);
  CHECK(point.layer_ms == std::vector<double>{10, 20});
  CHECK(point.layer_mb == std::vector<double>{100, 200});
  CHECK(point.sync_ms == Approx(5));
  // What is taken once comes from the point of the least degree and batch.
  CHECK(instance->parameter_bytes == std::vector<double>{1000, 2000});
  CHECK(instance->optimizer_ms == std::vector<double>{6, 20});
  CHECK(instance->generator_ms == Approx(0.5));
}

TEST_CASE("Metis: the greatest profiled degree and batch bound what is read", "[metis_instance_test]") {
  Json json = arguments();
  json["max_profiled_tp_degree"] = 1;
  const auto instance = parse_metis(json, texts());
  REQUIRE(instance);
  CHECK(instance->points.count({0, 2}) == 0);
  json["max_profiled_batch_size"] = 1;
  CHECK(!parse_metis(json, texts()));  // then A100 has no profile
}

TEST_CASE("Metis: everything that is wrong is listed", "[metis_instance_test]") {
  Json json = arguments();
  json["gbs"] = 0;
  MetisTexts bad = texts();
  bad.hosts = "10.0.0.1 slots=eight\n10.0.0.7 slots=4\n10.0.0.2 slots=4\n";
  bad.profiles.emplace_back("A100.json", "{}");
  bad.profiles.emplace_back("DeviceType.T4_tp1_bs2.json",
                            R"({"model": {}, "execution_time": {"layer_compute_total_ms": [-1]}})");
  bad.profiles.emplace_back("DeviceType.T4_tp1_bs4.json", "{");
  const auto instance = parse_metis(json, bad);
  REQUIRE(!instance);
  CHECK(instance.error().code == ErrorCode::InvalidArgument);
  const std::string text = to_text(instance.error());
  for (const char* words : {"gbs", "hostfile:1", "hostfile:2", "10.0.0.7", "not the name of a profile",
                            "DeviceType.T4_tp1_bs2.json.execution_time.layer_compute_total_ms[0]",
                            "DeviceType.T4_tp1_bs2.json.execution_memory", "DeviceType.T4_tp1_bs4.json"})
    CHECK(text.find(words) != std::string::npos);
}

TEST_CASE("Metis: a type of the cluster without a profile is named", "[metis_instance_test]") {
  MetisTexts bad = texts();
  bad.profiles.erase(bad.profiles.begin() + 2);
  const auto instance = parse_metis(arguments(), bad);
  REQUIRE(!instance);
  CHECK(to_text(instance.error()).find("none of T4") != std::string::npos);
}

TEST_CASE("Metis: profiles of unlike length are named", "[metis_instance_test]") {
  Json json = arguments();
  json["num_layers"] = 3;
  const auto instance = parse_metis(json, texts());
  REQUIRE(!instance);
  CHECK(to_text(instance.error()).find("3 layers") != std::string::npos);
}
