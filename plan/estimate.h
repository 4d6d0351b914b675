#pragma once
// What a plan is predicted to take, and its JSON (INTERFACE section 4, key "estimate"). Filled by cost_model/.
#include <optional>
#include <string>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/json.h"
#include "common/units.h"

namespace coxswain::plan {

struct MemoryParts {
  Bytes parameters{0}, gradients{0}, optimizer{0}, activations{0}, transfers{0}, workspace{0}, margin{0};
  [[nodiscard]] Bytes total() const {
    return parameters + gradients + optimizer + activations + transfers + workspace + margin;
  }
  friend bool operator==(const MemoryParts&, const MemoryParts&) = default;
};

struct DeviceEstimate {
  int role = 0;  // index into plan.roles; several entries where its replicas hold unlike shares of the experts
  std::vector<int> ranks;
  std::string device;    // device class name
  Bytes peak_memory{0};  // without margin: what the allocator is predicted to report
  MemoryParts parts;
  Bytes capacity{0};
  double busy_fraction = 0;
  friend bool operator==(const DeviceEstimate&, const DeviceEstimate&) = default;
};

struct Estimate {
  Seconds step{0};
  double tokens_per_second = 0;
  double model_flops_utilization = 0;
  double bubble_fraction = 0;
  /// Of the busiest chain; they add up to `step`.
  Seconds forward{0}, backward{0}, recompute{0}, communication_exposed{0}, bubble{0}, optimizer{0};
  /// C60; nothing where a used device has no price.
  std::optional<cluster::Usd> cost_per_step;
  std::vector<DeviceEstimate> devices;
  friend bool operator==(const Estimate&, const Estimate&) = default;
};
[[nodiscard]] Json to_json(const Estimate& estimate);
[[nodiscard]] Result<Estimate> estimate_from_json(const Json& json);

}  // namespace coxswain::plan
