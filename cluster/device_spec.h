#pragma once
// The SPEC grammar of INTERFACE section 1: `2xcpu`, `cpu@1.0,cpu@0.4`, `4xcpu`, `cuda:0-3`, `auto`.
// Threads: pure.
#include <string>
#include <string_view>
#include <vector>

#include "cluster/resource_graph.h"
#include "common/result.h"

namespace coxswain::cluster {

/// One device asked for on this node.
struct DeviceRequest {
  DeviceKind kind = DeviceKind::Cpu;
  int index = -1;               // CUDA ordinal; -1: next free
  double cores = 0;             // CPU: resolved share in cores
  bool explicit_share = false;  // `@` was given: a share that cannot be enforced is an error
  friend bool operator==(const DeviceRequest&, const DeviceRequest&) = default;
};

/// Resolves `spec` against this machine: cores without `@` are shared out evenly over the devices that name none.
/// Errors: InvalidArgument (grammar, with the column; more cores than there are; unknown kind).
[[nodiscard]] Result<std::vector<DeviceRequest>> parse_device_spec(std::string_view spec, double machine_cores,
                                                                   int num_cuda, int num_numa);

}  // namespace coxswain::cluster
