#pragma once
// The devices that an agent offers: SPEC resolved against this machine, CPU shares made and enforced.
// Called by the agent, and by run_train to refuse early. Threads: one owner. Source: INTERFACE section 1 (SPEC).
#include <memory>
#include <string>
#include <vector>

#include "cluster/cpu_share.h"
#include "cluster/device_spec.h"
#include "cluster/inventory.h"
#include "common/result.h"

namespace coxswain::launcher {

struct LocalDevice {
  cluster::DeviceRequest request;
  std::string name;                          // CPU model or GPU name
  Bytes memory{0};                           // what a plan may fill
  std::string enforced = "none";             // "cgroup", "affinity", "none" (one device with every core)
  std::unique_ptr<cluster::CpuShare> share;  // lives as long as workers run under it
  std::vector<int> cpus;                     // affinity where no cgroup is allowed
  int threads = 1;
};

/// `spec` empty: `processes`xcpu (or xcuda where there are CUDA devices) when `processes` > 0, else auto.
/// `share_name` starts the name of each cgroup.
/// Errors: InvalidArgument (SPEC); FailedPrecondition (an explicit share that cannot be enforced).
[[nodiscard]] Result<std::vector<LocalDevice>> prepare_devices(const std::string& spec, int processes,
                                                               const cluster::Inventory& inventory,
                                                               const std::string& share_name);

}  // namespace coxswain::launcher
