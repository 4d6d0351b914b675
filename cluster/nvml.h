#pragma once
// Private to cluster/: CUDA devices through NVML, loaded at run time, so that nothing links the driver.
// Threads: one at a time.
#include <string>
#include <vector>

#include "cluster/inventory.h"

namespace coxswain::cluster {

struct NvmlDevices {
  std::vector<CudaDevice> devices;
  std::string note;  // why there is none; empty otherwise
};
/// `library` is a parameter so that a test can bring a stand-in.
[[nodiscard]] NvmlDevices read_nvml(const std::string& library = "libnvidia-ml.so.1");

}  // namespace coxswain::cluster
