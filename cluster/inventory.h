#pragma once
// What this machine holds: hwloc for cores, NUMA and memory; NVML (loaded at run time) for CUDA devices.
// Called by agents and the probe. Threads: one at a time.
#include <string>
#include <vector>

#include "cluster/resource_graph.h"

namespace coxswain::cluster {

struct CudaDevice {
  int ordinal = 0;
  std::string name;
  Bytes memory{0};
  std::string link;  // "nvlink", "pcie"
};

struct Inventory {
  double cores = 0;  // usable: min(affinity, cgroup quota)
  int numa_nodes = 1;
  Bytes memory{0};  // min(available, cgroup limit)
  std::string cpu_model;
  std::vector<CudaDevice> cuda;
  std::string cuda_note;  // why there is none ("NVML not found: libnvidia-ml.so.1")
};
[[nodiscard]] Inventory take_inventory();

}  // namespace coxswain::cluster
