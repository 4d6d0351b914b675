#include "launcher/rest/node_report.h"

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "cluster/inventory.h"

namespace coxswain::launcher {
namespace {

constexpr std::size_t kMostName = 100, kMostText = 200, kMostDevices = 64;
constexpr double kMostCores = 1 << 20;
constexpr std::int64_t kMostBytes = std::int64_t{1} << 53;

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= kMostName && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  });
}

std::string short_text(JsonReader& reader, const char* member) {
  std::string text = reader.string(member);
  if (text.size() > kMostText)
    reader.problem({ErrorCode::InvalidArgument, "too long", member, "at most " + std::to_string(kMostText) + " bytes",
                    std::to_string(text.size()), ""});
  return text;
}

}  // namespace

NodeReport own_node() {
  const cluster::Inventory here = cluster::take_inventory();
  NodeReport report;
  report.cores = here.cores;
  report.cpu_model = here.cpu_model.substr(0, kMostText);
  report.memory_bytes = here.memory.value;
  JsonArray devices;
  for (const cluster::CudaDevice& one : here.cuda)
    devices.push_back(JsonObject{{"name", one.name}, {"memory_bytes", one.memory.value}});
  report.cuda_devices = std::move(devices);
  return report;
}

Json to_json(const NodeReport& report) {
  return JsonObject{{"name", report.name},
                    {"cores", report.cores},
                    {"cpu_model", report.cpu_model},
                    {"memory_bytes", report.memory_bytes},
                    {"cuda_devices", report.cuda_devices},
                    {"running", report.job.empty() ? Json() : Json(report.job)}};
}

Json node_request_json(const NodeReport& report) {
  JsonObject json{{"cores", report.cores},
                  {"cpu_model", report.cpu_model},
                  {"memory_bytes", report.memory_bytes},
                  {"cuda_devices", report.cuda_devices}};
  if (!report.job.empty()) json["job"] = report.job;
  return json;
}

Result<NodeReport> node_report_from_json(const std::string& name, const Json& body) {
  JsonReader reader(body, "");
  NodeReport report;
  report.name = name;
  std::vector<Error> problems;  // of devices
  if (!is_name(name))
    reader.problem({ErrorCode::InvalidArgument, "no name of a node", "name",
                    "letters, digits, `.`, `_` and `-`, at most " + std::to_string(kMostName), name, ""});
  report.cores = reader.number("cores");
  if (!(report.cores >= 0 && report.cores <= kMostCores))
    reader.problem(
        {ErrorCode::InvalidArgument, "no number of cores", "cores", "0 to 2^20", to_text(body["cores"]), ""});
  report.cpu_model = short_text(reader, "cpu_model");
  report.memory_bytes = reader.integer("memory_bytes", 0, kMostBytes);
  const JsonArray& devices = reader.array("cuda_devices");
  if (devices.size() > kMostDevices)
    reader.problem({ErrorCode::InvalidArgument, "too many devices", "cuda_devices",
                    "at most " + std::to_string(kMostDevices), std::to_string(devices.size()), ""});
  JsonArray read;
  for (std::size_t i = 0; i < std::min(devices.size(), kMostDevices); ++i) {
    JsonReader device(devices[i], "cuda_devices[" + std::to_string(i) + "]");
    read.push_back(JsonObject{{"name", short_text(device, "name")},
                              {"memory_bytes", device.integer("memory_bytes", 0, kMostBytes)}});
    for (Error& error : device.take_problems()) problems.push_back(std::move(error));
  }
  report.cuda_devices = std::move(read);
  if (reader.has("job"))
    report.job = short_text(reader, "job");
  else
    static_cast<void>(reader.any("job"));
  for (Error& error : reader.take_problems()) problems.push_back(std::move(error));
  if (problems.empty()) return report;
  return combine_errors(ErrorCode::InvalidArgument, "what an agent may not say of its node", std::move(problems));
}

}  // namespace coxswain::launcher
