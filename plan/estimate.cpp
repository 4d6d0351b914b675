#include "plan/estimate.h"

#include <limits>

namespace coxswain::plan {
namespace {

constexpr std::int64_t kMaxInt = std::numeric_limits<int>::max();

// The members of MemoryParts and of the step's parts with their keys, for both directions.
template <class Parts, class Visit>
void visit_memory(Parts& parts, Visit visit) {
  visit("activations", parts.activations);
  visit("gradients", parts.gradients);
  visit("margin", parts.margin);
  visit("optimizer", parts.optimizer);
  visit("parameters", parts.parameters);
  visit("transfers", parts.transfers);
  visit("workspace", parts.workspace);
}

template <class Value, class Visit>
void visit_step(Value& estimate, Visit visit) {
  visit("backward", estimate.backward);
  visit("bubble", estimate.bubble);
  visit("communication_exposed", estimate.communication_exposed);
  visit("forward", estimate.forward);
  visit("optimizer", estimate.optimizer);
  visit("recompute", estimate.recompute);
}

Json device_json(const DeviceEstimate& device) {
  JsonObject parts;
  visit_memory(device.parts, [&](const char* key, const Bytes& bytes) { parts[key] = Json(bytes.value); });
  JsonArray ranks(device.ranks.begin(), device.ranks.end());
  return JsonObject{{"busy_fraction", device.busy_fraction},
                    {"capacity_bytes", device.capacity.value},
                    {"device", device.device},
                    {"parts", std::move(parts)},
                    {"peak_memory_bytes", device.peak_memory.value},
                    {"ranks", std::move(ranks)},
                    {"role", device.role}};
}

void adopt(std::vector<Error>& problems, JsonReader& reader) {
  for (Error& problem : reader.take_problems()) problems.push_back(std::move(problem));
}

DeviceEstimate read_device(const Json& json, const std::string& path, std::vector<Error>& problems) {
  JsonReader reader(json, path);
  DeviceEstimate device;
  constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();
  device.role = static_cast<int>(reader.integer("role", 0, kMaxInt));
  const JsonArray& ranks = reader.array("ranks");
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i].is_integer() && ranks[i].integer() >= 0 && ranks[i].integer() <= kMaxInt) {
      device.ranks.push_back(static_cast<int>(ranks[i].integer()));
    } else {
      reader.problem(Error{ErrorCode::InvalidArgument, "wrong value", "ranks[" + std::to_string(i) + "]", "a rank",
                           to_text(ranks[i]), ""});
    }
  }
  device.device = reader.string("device");
  device.peak_memory = Bytes(reader.integer("peak_memory_bytes", 0, kMaxBytes));
  device.capacity = Bytes(reader.integer("capacity_bytes", 0, kMaxBytes));
  device.busy_fraction = reader.number("busy_fraction");
  JsonReader parts(reader.object("parts"), path + ".parts");
  visit_memory(device.parts, [&](const char* key, Bytes& bytes) { bytes = Bytes(parts.integer(key, 0, kMaxBytes)); });
  adopt(problems, parts);
  adopt(problems, reader);
  return device;
}

}  // namespace

Json to_json(const Estimate& estimate) {
  JsonObject parts;
  visit_step(estimate, [&](const char* key, const Seconds& seconds) { parts[key] = Json(seconds.value); });
  JsonArray devices;
  for (const DeviceEstimate& device : estimate.devices) devices.push_back(device_json(device));
  JsonObject object{{"bubble_fraction", estimate.bubble_fraction},
                    {"devices", std::move(devices)},
                    {"model_flops_utilization", estimate.model_flops_utilization},
                    {"parts", std::move(parts)},
                    {"step_seconds", estimate.step.value},
                    {"tokens_per_second", estimate.tokens_per_second}};
  if (estimate.cost_per_step) object["cost_per_step_usd"] = estimate.cost_per_step->value;
  return object;
}

Result<Estimate> estimate_from_json(const Json& json) {
  std::vector<Error> problems;
  JsonReader reader(json, "estimate");
  Estimate estimate;
  estimate.step = Seconds(reader.number("step_seconds"));
  estimate.tokens_per_second = reader.number("tokens_per_second");
  estimate.model_flops_utilization = reader.number("model_flops_utilization");
  estimate.bubble_fraction = reader.number("bubble_fraction");
  if (reader.has("cost_per_step_usd"))
    estimate.cost_per_step = cluster::Usd(reader.number("cost_per_step_usd"));
  else
    reader.any("cost_per_step_usd");
  JsonReader parts(reader.object("parts"), "estimate.parts");
  visit_step(estimate, [&](const char* key, Seconds& seconds) { seconds = Seconds(parts.number(key)); });
  adopt(problems, parts);
  const JsonArray& devices = reader.array("devices");
  for (std::size_t i = 0; i < devices.size(); ++i) {
    estimate.devices.push_back(read_device(devices[i], "estimate.devices[" + std::to_string(i) + "]", problems));
  }
  adopt(problems, reader);
  if (problems.empty()) return estimate;
  const std::string message = "estimate has " + std::to_string(problems.size()) + " problems of form";
  return combine_errors(ErrorCode::InvalidArgument, message, std::move(problems));
}

}  // namespace coxswain::plan
