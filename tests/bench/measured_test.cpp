// Rows of published tables to recipes: what is read, what is assumed, and why a row is refused.
#include "bench/support/measured.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::bench;
using namespace coxswain::cost_model;

namespace {

const std::string kHeader =
    "id,group,source,gpu,gpus,gpus_per_node,inter_node_link,layers,hidden,heads,seq_len,tp,pp,micro_batch,global_batch,"
    "experts,topk,dtype,framework,recompute,zero_stage,iter_seconds,notes,score_set\n";

/// A good row; `field` of it replaced.
std::string row_with(const std::string& field = "", const std::string& value = "") {
  std::vector<std::pair<std::string, std::string>> fields{{"id", "r1"},
                                                          {"group", "g-1"},
                                                          {"source", "s"},
                                                          {"gpu", "A100-80GB"},
                                                          {"gpus", "16"},
                                                          {"gpus_per_node", "8"},
                                                          {"inter_node_link", "800 Gbps/node"},
                                                          {"layers", "24"},
                                                          {"hidden", "1024"},
                                                          {"heads", "16"},
                                                          {"seq_len", "2048"},
                                                          {"tp", "2"},
                                                          {"pp", "4"},
                                                          {"micro_batch", "4"},
                                                          {"global_batch", "64"},
                                                          {"experts", ""},
                                                          {"topk", ""},
                                                          {"dtype", "bf16"},
                                                          {"framework", "NeMo / Megatron-Core"},
                                                          {"recompute", "full"},
                                                          {"zero_stage", "1"},
                                                          {"iter_seconds", "2.5"},
                                                          {"notes", ""},
                                                          {"score_set", "core"}};
  std::string line;
  for (const auto& [name, own] : fields) line += (line.empty() ? "" : ",") + (name == field ? value : own);
  return line + "\n";
}

MeasuredTables read(const std::string& rows, const Json& devices = Json()) {
  return read_measured(kHeader + rows, devices, "core");
}

std::string reason_with(const std::string& field, const std::string& value) {
  const MeasuredTables tables = read(row_with(field, value));
  return tables.unpredicted.size() == 1 ? tables.unpredicted[0].reason : "predicted";
}

}  // namespace

TEST_CASE("a row is a shape, a recipe, a machine and a time", "[measured_test]") {
  const MeasuredTables tables = read(row_with());
  REQUIRE(tables.rows.size() == 1);
  const MeasuredRow& row = tables.rows[0];
  CHECK(row.group == "g-1");
  CHECK(row.machine == "g on A100-80GB");
  CHECK(row.measured.step.value == 2.5);
  CHECK(row.measured.shape.num_blocks == 24);
  CHECK(row.measured.shape.kv_heads == 16);           // as the heads
  CHECK(row.measured.shape.ffn_hidden == 4096);       // four times hidden
  CHECK(row.measured.recipe.data == 2);               // 16 / (2 x 4)
  CHECK(row.measured.recipe.num_micro_batches == 8);  // 64 / (2 x 4)
  CHECK(row.measured.recipe.recompute == RecipeRecompute::Full);
  CHECK(row.measured.recipe.overlaps_gradients);
  CHECK(row.measured.machine.network.bandwidth.value.value == Approx(12.5e9 * 0.9));
  CHECK(row.measured.machine.network_known);
  CHECK_FALSE((row.experts || row.narrow || row.sharded));
}

TEST_CASE("rows of another set are not asked for", "[measured_test]") {
  const MeasuredTables tables = read(row_with("score_set", "stress"));
  CHECK(tables.rows.empty());
  CHECK(tables.unpredicted.empty());
  CHECK(read_measured(kHeader + row_with("score_set", "stress"), Json(), "all").rows.size() == 1);
}

TEST_CASE("a row that cannot be predicted keeps its reason", "[measured_test]") {
  CHECK(reason_with("layers", "") == "layers is missing");
  CHECK(reason_with("layers", "many") == "layers is not a number: many");
  CHECK(reason_with("hidden", "-1") == "hidden is not positive: -1");
  CHECK(reason_with("hidden", "nan") == "hidden is not a number: nan");
  CHECK(reason_with("iter_seconds", "") == "no measured step time");
  CHECK(reason_with("iter_seconds", "0") == "the measured step time is not positive");
  CHECK(reason_with("gpus", "12") == "tp x pp x cp = 8 does not divide gpus = 12");
  CHECK(reason_with("gpu", "Abacus") == "unknown device: Abacus");
  CHECK(reason_with("gpu", "V100-16GB+T4-16GB") == "several kinds of devices in one run: V100-16GB+T4-16GB");
  CHECK(reason_with("experts", "8") == "topk is missing");
  CHECK(reason_with("dtype", "fp32") == "dtype fp32: only 16, 8 and 4 bits are modelled");
  CHECK(reason_with("zero_stage", "7") == "zero_stage is not 0 to 3: 7");
}

TEST_CASE("a line that does not fit the header is named by its number", "[measured_test]") {
  const MeasuredTables tables = read("r2,g\n" + row_with() + ",,\n");
  REQUIRE(tables.rows.size() == 1);
  REQUIRE(tables.unpredicted.size() == 2);
  CHECK(tables.unpredicted[0].id == "r2");
  CHECK(tables.unpredicted[0].reason == "2 fields, the header has 24");
  CHECK(tables.unpredicted[1].id == "line 4");
}

TEST_CASE("columns that are not there have their usual values", "[measured_test]") {
  const MeasuredTables tables = read_measured(
      "group,gpu,gpus,layers,hidden,seq_len,micro_batch,global_batch,unit,measured_value\n"
      "g,T4-16GB,4,24,1024,1000,1,8,tokens_per_s_per_gpu,100\n",
      Json(), "core");
  REQUIRE(tables.rows.size() == 1);
  CHECK(tables.rows[0].measured.step.value == Approx(8 * 1000 / 100.0 / 4));
  CHECK(tables.rows[0].measured.shape.vocabulary == 51200);
  CHECK(tables.rows[0].measured.shape.heads == 16);
  CHECK(tables.rows[0].measured.recipe.data == 4);
}

TEST_CASE("a device that the catalogue lacks comes from devices.json", "[measured_test]") {
  const auto devices =
      parse_json(R"json({"devices": [{"name": "Abacus-X (rack)", "dense_tflops": {"bf16": 100, "fp8": 300},
    "memory_bandwidth_gbs": 1000, "intra_node_unidirectional_gbs": 200}]})json");
  REQUIRE(devices.has_value());
  const MeasuredTables tables = read(row_with("gpu", "Abacus-X"), *devices);
  REQUIRE(tables.rows.size() == 1);
  const RecipeMachine& machine = tables.rows[0].measured.machine;
  CHECK(machine.device.peak_bfloat16.value.value == Approx(100e12));
  CHECK(machine.best_8bit.value == Approx(3 * 271.2e12 * 100 / 312));
  CHECK(machine.device.memory_bandwidth.value.value == Approx(1e12));
}

TEST_CASE("the text of a network gives the rate of one device", "[measured_test]") {
  const auto rate = [](const std::string& text) {
    const auto machine = measured_machine("H100-80GB", 8, text, Json());
    REQUIRE(machine.has_value());
    return machine->network.bandwidth.value.value / 0.9 * 8 / 1e9;
  };
  CHECK(rate("InfiniBand NDR400 per GPU (DGX H100 reference)") == Approx(400));
  CHECK(rate("RoCE 1600 Gbps/node") == Approx(200));
  CHECK(rate("Storage: 2x A 100Gb/s, Compute: 8x B NDR 400Gb/s, Management: 8x C 800Gb/s") == Approx(400));
  CHECK(rate("1x Ethernet 100Gb/Sec, 8x CX7 InfiniBand (200Gb/s)") == Approx(200));
  CHECK(rate("8x100 Gbps NIC/node") == Approx(100));
  CHECK(rate("InfiniBand HDR") == Approx(200));
  CHECK(rate("RoCE; PCIe-NIC: 500 GB/s") == Approx(500));
  CHECK(rate("") == Approx(400));  // of a system of that time
  CHECK_FALSE(measured_machine("A100-80GB", 8, "", Json())->network_known);
}

TEST_CASE("a folder without the table is an error", "[measured_test]") {
  const auto tables = read_measured_folder("no/such/folder", "core");
  REQUIRE_FALSE(tables.has_value());
  CHECK(tables.error().code == ErrorCode::NotFound);
}
