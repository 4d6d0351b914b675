// The catalogue: what a text of its grammar becomes, and the figures behind the names. Expected figures are those of
// the vendors' datasheets (dense, without sparsity), written here by hand.
#include "cluster/catalogue.h"

#include <algorithm>
#include <set>

#include "cluster/catalogue_data.h"
#include "cluster/catalogue_entries.h"

#include <catch2/catch.hpp>

using namespace coxswain;
using namespace coxswain::cluster;

namespace {

ResourceGraph cluster_of(const std::string& text) {
  const auto graph = cluster_from_catalogue(text);
  INFO(text << "\n" << (graph ? "" : to_text(graph.error())));
  REQUIRE(graph.has_value());
  CHECK(validate(*graph).empty());
  return *graph;
}

Error error_of(const std::string& text) {
  const auto graph = cluster_from_catalogue(text);
  INFO(text);
  REQUIRE_FALSE(graph.has_value());
  return graph.error();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

double gigabytes_per_second(const LinkClass& link) { return link.bandwidth.value.value / 1e9; }

struct Datasheet {
  std::string name;
  double memory_gigabytes, gigabytes_per_second, bfloat16_teraflops, float32_teraflops;
};

}  // namespace

TEST_CASE("a device has the figures of its datasheet", "[catalogue_test]") {
  const std::vector<Datasheet> datasheets{
      {"v100-16gb", 16, 900, 0, 15.7},
      {"v100-32gb", 32, 900, 0, 15.7},
      {"a100-40gb-sxm", 40, 1555, 312, 19.5},
      {"a100-80gb-sxm", 80, 2039, 312, 19.5},
      {"a100-80gb-pcie", 80, 1935, 312, 19.5},
      {"h100-sxm", 80, 3350, 989, 67},
      {"h100-96gb", 96, 2400, 989, 67},
      {"h100-pcie", 80, 2000, 756, 51},
      {"h100-nvl", 94, 3900, 835, 60},
      {"h200", 141, 4800, 989, 67},
      {"gh200", 96, 4000, 989, 67},
      {"h800", 80, 3350, 989, 67},
      {"a800", 80, 2039, 312, 19.5},
      {"b200", 180, 7700, 2250, 75},
      {"b300", 270, 7700, 2250, 75},
      {"gb200", 186, 8000, 2500, 80},
      {"gb300", 279, 8000, 2500, 80},
      {"mi250x", 64, 1638, 191.5, 47.85},
      {"mi300x", 192, 5300, 1307, 163.4},
      {"mi325x", 256, 6000, 1307, 163.4},
      {"mi355x", 288, 8000, 2500, 157.3},
      {"tpu-v4", 32, 1200, 275, 275.0 / 6},
      {"tpu-v5e", 16, 819, 197, 197.0 / 6},
      {"tpu-v5p", 95, 2765, 459, 459.0 / 6},
      {"tpu-v6e", 32, 1638, 918, 918.0 / 6},
  };
  for (const Datasheet& expected : datasheets) {
    const ResourceGraph graph = cluster_of("1x1x" + expected.name);
    INFO(expected.name);
    REQUIRE(graph.device_classes.size() == 1);
    const DeviceClass& device = graph.device_classes.front();
    CHECK(device.name == expected.name);
    CHECK(device.memory.value == Bytes(static_cast<std::int64_t>(expected.memory_gigabytes * 1e9)));
    CHECK(device.memory.source == Source::Datasheet);
    CHECK(device.memory_bandwidth.value.value == Approx(expected.gigabytes_per_second * 1e9));
    CHECK(device.peak_bfloat16.value.value == Approx(expected.bfloat16_teraflops * 1e12));
    CHECK(device.peak_bfloat16.source == Source::Datasheet);
    CHECK(device.peak_float32.value.value == Approx(expected.float32_teraflops * 1e12).epsilon(0.002));
  }
}

TEST_CASE("cards whose memory is shared with error correction or a display keep less than the datasheet's",
          "[catalogue_test]") {
  const std::vector<Datasheet> datasheets{
      {"t4", 16, 320, 0, 8.1},
      {"a10", 24, 600, 125, 31.2},
      {"l4", 24, 300, 121, 30.3},
      {"l40s", 48, 864, 362, 91.6},
      {"rtx-2080", 8, 448, 0, 10.1},
      {"rtx-3090", 24, 936, 71, 35.6},
      {"rtx-4090", 24, 1008, 165.2, 82.6},
      {"rtx-5090", 32, 1792, 209.5, 104.8},
      {"titan-rtx", 24, 672, 0, 16.3},
  };
  for (const Datasheet& expected : datasheets) {
    const DeviceClass device = cluster_of("1x" + expected.name).device_classes.front();
    INFO(expected.name);
    const double gigabytes = static_cast<double>(device.memory.value.value) / 1e9;
    CHECK(gigabytes < expected.memory_gigabytes);
    CHECK(gigabytes > 0.92 * expected.memory_gigabytes);
    CHECK(device.memory.source == Source::Assumed);
    CHECK(device.memory_bandwidth.value.value == Approx(expected.gigabytes_per_second * 1e9).epsilon(0.001));
    CHECK(device.peak_bfloat16.value.value == Approx(expected.bfloat16_teraflops * 1e12));
    CHECK(device.peak_float32.value.value == Approx(expected.float32_teraflops * 1e12).epsilon(0.001));
  }
}

TEST_CASE("nodes, devices and the network of a cluster", "[catalogue_test]") {
  const ResourceGraph graph = cluster_of("16x8xh100-sxm,ib400");
  CHECK(num_nodes(graph) == 16);
  CHECK(num_devices(graph) == 128);
  REQUIRE(graph.node_classes.size() == 1);
  CHECK(graph.node_classes.front().name == "8xh100-sxm");
  CHECK(graph.node_classes.front().cores == 112);  // two processors with 56 cores
  CHECK(graph.node_classes.front().host_memory.value == Bytes(2'000'000'000'000));
  const LinkClass& inside = link_between_nodes(graph, 3, 3);
  CHECK(inside.name == "nvlink4");
  // 900 GB/s both ways, of which an all_gather achieves 361 of 450.
  CHECK(gigabytes_per_second(inside) == Approx(450 * 0.8));
  CHECK(inside.bandwidth.source == Source::Assumed);
  REQUIRE(graph.tiers.size() == 1);
  const LinkClass& network = link_between_nodes(graph, 0, 15);
  CHECK(network.name == "ib400");
  CHECK(gigabytes_per_second(network) == Approx(400.0 / 8 * 0.9));
  CHECK(network.sharing == 8);  // a card each
}

TEST_CASE("left out, devices are what the board carries", "[catalogue_test]") {
  CHECK(num_devices(cluster_of("2xh100-sxm,ib400")) == 16);
  CHECK(num_devices(cluster_of("3xrtx-4090,eth10")) == 3);
  CHECK(num_devices(cluster_of("2xgb200")) == 8);
}

TEST_CASE("network cards follow the devices of a node, or are given", "[catalogue_test]") {
  CHECK(cluster_of("2x4xh100-sxm,ib400").tiers.front().link.sharing == 4);
  CHECK(cluster_of("2x8xv100-16gb,ib100").tiers.front().link.sharing == 4);  // a DGX-1 has four
  CHECK(cluster_of("2x4xv100-16gb,ib100").tiers.front().link.sharing == 2);
  CHECK(cluster_of("2x1xv100-16gb,ib100").tiers.front().link.sharing == 1);
  CHECK(cluster_of("2x8xh100-sxm,eth100").tiers.front().link.sharing == 1);
  CHECK(cluster_of("2x8xh100-sxm,2xib400").tiers.front().link.sharing == 2);
}

TEST_CASE("a system brings its devices, its host and its network", "[catalogue_test]") {
  const ResourceGraph graph = cluster_of("4xp4d.24xlarge");
  CHECK(num_devices(graph) == 32);
  CHECK(graph.device_classes.front().name == "a100-40gb-sxm");
  CHECK(graph.node_classes.front().name == "p4d.24xlarge");
  CHECK(graph.node_classes.front().cores == 48);
  CHECK(graph.node_classes.front().host_memory.value == Bytes(std::int64_t{1152} << 30));
  CHECK(graph.tiers.front().link.name == "efa100");
  CHECK(graph.tiers.front().link.sharing == 4);
  // Another network takes its place.
  CHECK(cluster_of("4xp4d.24xlarge,ib200").tiers.front().link.name == "ib200");
}

TEST_CASE("a rack's own fabric comes before the network", "[catalogue_test]") {
  const ResourceGraph rack = cluster_of("1xgb200-nvl72");
  CHECK(num_nodes(rack) == 18);
  CHECK(num_devices(rack) == 72);
  CHECK(link_between_nodes(rack, 0, 17).name == "nvlink5");
  const ResourceGraph racks = cluster_of("4xgb200-nvl72");
  CHECK(num_devices(racks) == 288);
  CHECK(link_between_nodes(racks, 0, 17).name == "nvlink5");
  CHECK(link_between_nodes(racks, 17, 18).name == "ib400");
  CHECK(link_between_nodes(racks, 18, 35).name == "nvlink5");
  // A pod of 256 chips on hosts of eight, so 32 of them.
  const ResourceGraph pods = cluster_of("64x8xtpu-v5e,eth100");
  CHECK(link_between_nodes(pods, 0, 31).name == "ici-v5e");
  CHECK(link_between_nodes(pods, 31, 32).name == "eth100");
}

TEST_CASE("groups with networks of their own meet over the slower one", "[catalogue_test]") {
  const ResourceGraph graph = cluster_of("4x8xa100-80gb-sxm,ib200+8x4xv100-16gb,ib100");
  CHECK(num_nodes(graph) == 12);
  CHECK(num_devices(graph, 0) == 32);
  CHECK(num_devices(graph, 1) == 32);
  CHECK(link_between_nodes(graph, 0, 3).name == "ib200");
  CHECK(link_between_nodes(graph, 4, 11).name == "ib100");
  const LinkClass& between = link_between_nodes(graph, 3, 4);
  CHECK(between.name == "ib100");
  CHECK(between.sharing == 2);
  CHECK(link_between_nodes(graph, 0, 0).name == "nvlink3");
  CHECK(link_between_nodes(graph, 4, 4).name == "nvlink2");
  const auto back = resource_graph_from_json(to_json(graph));
  REQUIRE(back.has_value());
  CHECK(*back == graph);
}

TEST_CASE("groups with the same network share one tier", "[catalogue_test]") {
  const ResourceGraph graph = cluster_of("4xdgx-a100+2xnd96asr-v4");
  CHECK(graph.nodes.size() == 2);
  CHECK(graph.nodes[0].tiers.empty());
  REQUIRE(graph.tiers.size() == 1);
  CHECK(graph.tiers.front().link.name == "ib200");
  CHECK(graph.device_classes.size() == 2);
}

TEST_CASE("groups of one device share its class", "[catalogue_test]") {
  const ResourceGraph graph = cluster_of("1x8xh100-sxm,ib400+1x4xh100-sxm,ib400");
  CHECK(graph.device_classes.size() == 1);
  CHECK(graph.node_classes.size() == 2);
  CHECK(num_devices(graph, 0) == 12);
}

TEST_CASE("one node needs no network", "[catalogue_test]") {
  CHECK(cluster_of("1x8xa100-80gb-sxm").tiers.empty());
  const Error error = error_of("2x8xa100-80gb-sxm");
  CHECK(contains(error.message, "network"));
  CHECK(contains(error.expected, "ib200"));
  CHECK(error.path == "cluster column 1");
}

TEST_CASE("names may be capital and have second forms", "[catalogue_test]") {
  CHECK(cluster_of("2X8xH100-SXM,IB400") == cluster_of("2x8xh100-sxm,ib400"));
  CHECK(cluster_of("2x8xh200-sxm,ib400") == cluster_of("2x8xh200,ib400"));
}

TEST_CASE("an unknown device lists the known ones and points at its kin", "[catalogue_test]") {
  const Error error = error_of("16x8xh100,ib400");
  CHECK(error.path == "cluster column 6");
  CHECK(error.got == "h100");
  for (const char* name : {"v100-16gb", "mi300x", "tpu-v6e", "ascend-910b", "dgx-a100", "p5.48xlarge"})
    CHECK(contains(error.expected, name));
  CHECK(error.hint == "use one of h100-sxm, h100-96gb, h100-pcie, h100-nvl");
}

TEST_CASE("an unknown network lists the known ones", "[catalogue_test]") {
  const Error error = error_of("16x8xh100-sxm,ib300");
  CHECK(error.path == "cluster column 15");
  CHECK(error.got == "ib300");
  for (const char* name : {"eth10", "eth25", "eth100", "ib100", "ib200", "ib400", "ib800", "roce400", "efa400"})
    CHECK(contains(error.expected, name));
}

TEST_CASE("all problems are told at once", "[catalogue_test]") {
  const Error error = error_of("0x9xh100-sxm,ib1+4x8xa100-80gb-sxm,ib200,ib400+h200+");
  std::vector<std::string> paths;
  for (const Error& detail : error.details) paths.push_back(detail.path);
  // Number of nodes, devices of a node, network; a second network; no number of nodes; nothing.
  CHECK(paths == std::vector<std::string>{"cluster column 1", "cluster column 3", "cluster column 14",
                                          "cluster column 42", "cluster column 48", "cluster column 53"});
}

TEST_CASE("a board holds only so many devices", "[catalogue_test]") {
  CHECK(error_of("1x16xh100-sxm").expected == "1 to 8");
  CHECK(contains(error_of("1x72xgb200").hint, "72 devices"));
  CHECK(contains(error_of("2x4xdgx-h100").message, "its own number of devices"));
  CHECK(error_of("99999999999999999999xh200,ib400").path == "cluster column 1");
}

TEST_CASE("a catalogue's text is told from a file's name", "[catalogue_test]") {
  CHECK(names_catalogue("16x8xh100-sxm,ib400"));
  CHECK(names_catalogue("4xnonsense"));
  CHECK_FALSE(names_catalogue("cluster.json"));
  CHECK_FALSE(names_catalogue("4x"));
  CHECK_FALSE(names_catalogue("16"));
  CHECK_FALSE(names_catalogue("x8"));
  CHECK_FALSE(names_catalogue(""));
}

TEST_CASE("every name of the catalogue makes a valid cluster that survives its file", "[catalogue_test]") {
  const Catalogue& catalogue = builtin_catalogue();
  CHECK(catalogue.devices.size() >= 40);
  std::vector<std::string> texts;
  for (const CatalogueDevice& entry : catalogue.devices) texts.push_back("2x" + entry.device.name + ",ib200");
  for (const CatalogueSystem& entry : catalogue.systems) texts.push_back("3x" + entry.name);
  for (const CatalogueNetwork& entry : catalogue.networks) texts.push_back("2x8xh100-sxm," + entry.link.name);
  for (const std::string& text : texts) {
    const ResourceGraph graph = cluster_of(text);
    const auto back = resource_graph_from_json(to_json(graph));
    REQUIRE(back.has_value());
    CHECK(*back == graph);
    CHECK(contains(list_catalogue(), text.substr(2, std::min(text.find(','), text.size()) - 2)));
  }
}

TEST_CASE("efficiency curves rise and stay near the peak", "[catalogue_test]") {
  for (const CatalogueDevice& entry : builtin_catalogue().devices) {
    const DeviceClass& device = entry.device;
    INFO(device.name);
    std::set<DType> dtypes;
    for (std::size_t i = 0; i < device.matmul_rates.size(); ++i) {
      const MatmulRate& rate = device.matmul_rates[i];
      CHECK(rate.rate.source == Source::Assumed);
      if (!dtypes.insert(rate.dtype).second) {
        CHECK(rate.rate.value > device.matmul_rates[i - 1].rate.value);
      }
      const double peak =
          rate.dtype == DType::Float32 ? device.peak_float32.value.value : device.peak_bfloat16.value.value;
      // Consumer cards clock up to a quarter above their datasheet.
      if (peak > 0) CHECK(rate.rate.value.value < 1.25 * peak);
    }
    CHECK(dtypes.count(DType::Float32) == 1);
    CHECK(dtypes.count(device.peak_bfloat16.value.value > 0 ? DType::BFloat16 : DType::Float16) == 1);
  }
}

TEST_CASE("the curve of the A100 is the best GEMM seen, at large sizes", "[catalogue_test]") {
  const DeviceClass device = cluster_of("1xa100-80gb-sxm").device_classes.front();
  double best = 0, small = 0;
  for (const MatmulRate& rate : device.matmul_rates) {
    if (rate.dtype != DType::BFloat16) continue;
    if (rate.size == 8192) best = rate.rate.value.value;
    if (rate.size == 1024) small = rate.rate.value.value;
  }
  CHECK(best == Approx(271.2e12));  // ml-engineering, maximum achievable matmul FLOPS
  CHECK(small < 0.6 * best);        // 64 tiles of 128 x 128 on 108 multiprocessors
}

TEST_CASE("a number without source or origin is refused", "[catalogue_test]") {
  std::string networks(catalogue_networks_text());
  const std::string origin = "\"from\": \"line rate\"";
  const auto at = networks.find(origin);
  REQUIRE(at != std::string::npos);
  const auto read = [](const std::string& text) {
    return read_catalogue(catalogue_devices_text(), catalogue_nodes_text(), text);
  };
  CHECK(read(networks).has_value());
  networks.replace(at, origin.size(), "\"from\": \"\"");
  const auto empty = read(networks);
  REQUIRE_FALSE(empty.has_value());
  CHECK(contains(to_text(empty.error()), "bandwidth_bytes_per_second.from"));
  networks.replace(at, std::string("\"from\": \"\"").size(), "\"form\": \"x\"");
  CHECK_FALSE(read(networks).has_value());
}
