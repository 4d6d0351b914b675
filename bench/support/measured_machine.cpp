#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <regex>

#include "bench/support/measured.h"
#include "cluster/catalogue.h"

namespace coxswain::bench {
namespace {

using cost_model::RecipeMachine;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::replace(text.begin(), text.end(), ' ', '-');
  return text;
}

/// Names of the catalogue that `gpu` may mean, the likeliest first.
std::vector<std::string> candidates(const std::string& gpu) {
  const std::string name = lower(gpu);
  std::vector<std::string> result{name, name + "-sxm"};
  // With or without the size of the memory.
  static const std::regex kMemory("-(sxm[0-9]?-)?[0-9]+gb.*$");
  const std::string plain = std::regex_replace(name, kMemory, "");
  static const std::regex kForm("-sxm[0-9]?");
  result.push_back(std::regex_replace(name, kForm, ""));
  result.push_back(std::regex_replace(name, kForm, "") + "-sxm");
  result.push_back(plain);
  result.push_back(plain + "-sxm");
  result.push_back(plain + "-80gb-sxm");
  return result;
}

/// The network of the systems that devices of that time were sold in.
std::string reference_network(const std::string& device) {
  const auto starts = [&](std::string_view prefix) { return device.starts_with(prefix); };
  if (starts("gb300") || starts("b300")) return "ib800";
  if (starts("h") || starts("b200") || starts("gb200") || starts("mi3")) return "ib400";
  if (starts("a100") || starts("a800") || starts("gh200") || starts("ascend") || starts("mi250")) return "ib200";
  if (starts("t4") || starts("rtx") || starts("titan") || starts("l4") || starts("a10")) return "eth100";
  return "ib100";
}

/// What follows `Compute:`, where a text lists cards by purpose.
std::string compute_part(const std::string& link) {
  const std::size_t begin = link.find("Compute:");
  if (begin == std::string::npos) return link;
  return link.substr(begin, std::min(link.find(", ", begin), link.find(';', begin)) - begin);
}

/// Gbit/s of one device, where the text tells: a rate per device, cards with their rate, a node's rate, or the name of
/// an InfiniBand generation (one card a device).
std::optional<double> rate_in(const std::string& whole, double per_node) {
  const std::string link = compute_part(whole);
  std::smatch match;
  static const std::regex kEach("([0-9.]+) ?(Gbps|Gb/s)? per GPU");
  if (std::regex_search(link, match, kEach)) return std::stod(match[1]);
  // Several kinds of cards: the fastest set carries the training.
  static const std::regex kCards("([0-9]+)x ?[^,;:]*?([0-9]+) ?Gb(ps|/s|/Sec|/sec)");
  double best = 0;
  for (std::sregex_iterator at(link.begin(), link.end(), kCards), end; at != end; ++at)
    best = std::max(best, std::stod((*at)[1]) * std::stod((*at)[2]) / per_node);
  if (best > 0) return best;
  static const std::regex kNode("([0-9.]+) ?Gbps(/node| \\()");
  if (std::regex_search(link, match, kNode)) return std::stod(match[1]) / per_node;
  static const std::regex kBus("PCIe-NIC: ?([0-9.]+) ?GB/s");
  if (std::regex_search(whole, match, kBus)) return std::stod(match[1]) * 8 / per_node;
  static const std::vector<std::pair<std::string, double>> kGenerations{
      {"XDR", 800}, {"NDR", 400}, {"HDR", 200}, {"EDR", 100}, {"EFA (p5)", 400}, {"Slingshot-11", 200}};
  for (const auto& [name, rate] : kGenerations)
    if (link.find(name) != std::string::npos) return rate;
  return std::nullopt;
}

std::optional<cluster::ResourceGraph> catalogue_graph(const std::string& gpu, double per_node) {
  for (const std::string& name : candidates(gpu)) {
    const std::string device = std::to_string(std::lround(per_node)) + "x" + name;
    // Nodes enough that a rack or pod shows its own link and the network beyond it.
    if (auto graph = cluster::cluster_from_catalogue("1000x" + device + "," + reference_network(name))) return *graph;
    if (auto graph = cluster::cluster_from_catalogue("1000x" + name + "," + reference_network(name))) return *graph;
  }
  return std::nullopt;
}

double number_of(const Json& json) { return json.is_number() ? json.number() : 0; }

/// A device of devices.json, with the memory and links it states; what achieves as an A100's matmuls do.
Result<RecipeMachine> listed_machine(const std::string& gpu, double per_node, const Json& devices) {
  const Json& list = devices["devices"];
  const auto names = candidates(gpu);
  for (const Json& entry : list.is_array() ? list.array() : JsonArray{}) {
    const std::string name = entry["name"].is_string() ? lower(entry["name"].string()) : "";
    const bool named = std::any_of(names.begin(), names.end(),
                                   [&](const std::string& each) { return !name.empty() && name.starts_with(each); });
    if (!named) continue;
    const Json& peaks = entry["dense_tflops"];
    const double wide = std::max(number_of(peaks["bf16"]), number_of(peaks["fp16"]));
    const double memory = number_of(entry["memory_bandwidth_gbs"]);
    double link = number_of(entry["intra_node_unidirectional_gbs"]);
    if (link <= 0) link = number_of(entry["pcie_unidirectional_gbs"]);
    if (wide <= 0 || memory <= 0 || link <= 0) continue;
    RecipeMachine machine;
    // The A100's curve, in proportion to the peaks.
    COX_TRY(const cluster::ResourceGraph like, cluster::cluster_from_catalogue("2x8xa100-80gb-sxm,ib200"));
    machine = cost_model::recipe_machine(like);
    const double ratio = wide * 1e12 / machine.device.peak_bfloat16.value.value;
    machine.device.name = name;
    machine.device.peak_bfloat16.value = FlopPerSecond(wide * 1e12);
    for (cluster::MatmulRate& rate : machine.device.matmul_rates)
      rate.rate.value = FlopPerSecond(rate.rate.value.value * ratio);
    machine.device.memory_bandwidth.value = BytesPerSecond(memory * 1e9);
    const double best = 271.2e12 * ratio;
    if (const double bits8 = number_of(peaks["fp8"]); bits8 > 0) machine.best_8bit = FlopPerSecond(best * bits8 / wide);
    if (const double bits4 = number_of(peaks["fp4"]); bits4 > 0) machine.best_4bit = FlopPerSecond(best * bits4 / wide);
    machine.after_ampere = true;
    machine.node_link.bandwidth.value = BytesPerSecond(link * 1e9 * 0.78);
    machine.domain_devices = per_node;
    return machine;
  }
  return Error{ErrorCode::NotFound, "unknown device", "gpu", "a device of the catalogue or of devices.json", gpu, ""};
}

}  // namespace

Result<RecipeMachine> measured_machine(const std::string& gpu, double per_node, const std::string& link,
                                       const Json& devices) {
  if (gpu.find('+') != std::string::npos)
    return Error{ErrorCode::Unimplemented, "several kinds of devices in one run", "gpu", "one kind", gpu, ""};
  RecipeMachine machine;
  if (const auto graph = catalogue_graph(gpu, per_node)) {
    machine = cost_model::recipe_machine(*graph);
  } else {
    COX_TRY(machine, listed_machine(gpu, per_node, devices));
  }
  const std::optional<double> rate = rate_in(link, per_node);
  // Since the H100 every system on sale has a card of full rate for each device; before, clouds had fewer.
  machine.network_known = rate.has_value() || machine.after_ampere;
  if (rate) machine.network.bandwidth.value = BytesPerSecond(*rate / 8 * 1e9 * 0.9);  // as the catalogue's InfiniBand
  return machine;
}

}  // namespace coxswain::bench
