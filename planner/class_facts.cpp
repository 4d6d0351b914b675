#include "planner/class_facts.h"

#include <algorithm>
#include <cstdio>

#include "planner/words.h"

namespace coxswain::planner {
namespace {

template <class Value>
void insert_once(std::vector<Value>& sorted, Value value) {
  const auto at = std::lower_bound(sorted.begin(), sorted.end(), value);
  if (at == sorted.end() || *at != value) sorted.insert(at, value);
}

/// "2", "3, 5", "1 to 4" for more than three.
template <class Value>
std::string listed(const std::vector<Value>& values) {
  if (values.empty()) return "-";
  if (values.size() > 3) return std::to_string(values.front()) + " to " + std::to_string(values.back());
  std::string text;
  for (const Value value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

template <class Value>
JsonArray json_list(const std::vector<Value>& values) {
  JsonArray array;
  for (const Value value : values) array.push_back(Json(value));
  return array;
}

}  // namespace

std::vector<ClassFacts> class_facts(const cluster::ResourceGraph& graph, const plan::Plan& plan,
                                    const plan::Estimate& estimate) {
  std::vector<ClassFacts> all(graph.device_classes.size());
  for (std::size_t c = 0; c < all.size(); ++c) {
    all[c].device = graph.device_classes[c].name;
    all[c].there = cluster::num_devices(graph, static_cast<int>(c));
    all[c].capacity = graph.device_classes[c].memory.value;
  }
  for (std::size_t s = 0; s < plan.stages.size(); ++s) {
    const plan::Stage& stage = plan.stages[s];
    for (const plan::Replica& replica : stage.replicas) {
      ClassFacts& facts = all[static_cast<std::size_t>(replica.devices.front().device_class)];
      if (facts.used == 0) facts.first_block = stage.first_block;
      facts.used += static_cast<std::int64_t>(replica.devices.size());
      facts.end_block = std::max(facts.end_block, stage.end_block);
      insert_once(facts.tensor, replica.tensor);
      insert_once(facts.stages, static_cast<int>(s));
      insert_once(facts.samples, replica.samples);
    }
  }
  for (const plan::DeviceEstimate& device : estimate.devices) {
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const ClassFacts& facts) { return facts.device == device.device; });
    if (found == all.end()) continue;
    found->busy_fraction += device.busy_fraction * static_cast<double>(device.ranks.size()) /
                            static_cast<double>(std::max<std::int64_t>(1, found->used));
    if (device.parts.total() > found->fullest.total()) found->fullest = device.parts;
  }
  std::erase_if(all, [](const ClassFacts& facts) { return facts.there == 0; });
  return all;
}

std::string class_table(const std::vector<ClassFacts>& facts) {
  char line[256];
  std::snprintf(line, sizeof line, "%-18s %9s %7s %9s %10s %10s %6s  %s\n", "device class", "used", "tensor", "stages",
                "blocks", "samples", "busy", "fullest device");
  std::string text = line;
  for (const ClassFacts& one : facts) {
    const std::string used = std::to_string(one.used) + " of " + std::to_string(one.there);
    if (one.used == 0) {
      std::snprintf(line, sizeof line, "%-18s %9s %7s %9s %10s %10s %6s  %s\n", one.device.c_str(), used.c_str(), "-",
                    "-", "-", "-", "-", ("0 of " + bytes_text(one.capacity.value)).c_str());
      text += line;
      continue;
    }
    const std::string blocks = "[" + std::to_string(one.first_block) + "," + std::to_string(one.end_block) + ")";
    const std::string full = bytes_text(one.fullest.total().value) + " of " + bytes_text(one.capacity.value);
    std::snprintf(line, sizeof line, "%-18s %9s %7s %9s %10s %10s %4.0f %%  %s\n", one.device.c_str(), used.c_str(),
                  listed(one.tensor).c_str(), listed(one.stages).c_str(), blocks.c_str(), listed(one.samples).c_str(),
                  one.busy_fraction * 100, full.c_str());
    text += line;
  }
  return text;
}

Json class_json(const std::vector<ClassFacts>& facts) {
  JsonArray array;
  for (const ClassFacts& one : facts) {
    array.push_back(JsonObject{{"blocks", JsonArray{Json(one.first_block), Json(one.end_block)}},
                               {"busy_fraction", one.busy_fraction},
                               {"capacity_bytes", one.capacity.value},
                               {"device", one.device},
                               {"fullest_bytes", one.fullest.total().value},
                               {"samples", json_list(one.samples)},
                               {"stages", json_list(one.stages)},
                               {"tensor", json_list(one.tensor)},
                               {"there", one.there},
                               {"used", one.used}});
  }
  return array;
}

}  // namespace coxswain::planner
