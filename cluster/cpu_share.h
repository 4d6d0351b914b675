#pragma once
// CPU shares enforced by a cgroup with a 4 ms period, up to 10 ms for less than a quarter of a core (with 100 ms a 20 ms
// action takes 12 to 75 ms, and devices that meet wait for each other's turns).
// Version 1 and 2 layouts; the root is a parameter, version 2 is tested on a fake tree only.
// Called by the agent, which adds each worker's pid. Threads: one owner.
#include <filesystem>
#include <memory>
#include <string>

#include "common/result.h"

namespace coxswain::cluster {

/// A cgroup that limits its processes to `cores`; removed by the destructor (which requires them to have ended).
class CpuShare {
 public:
  virtual ~CpuShare() = default;
  [[nodiscard]] virtual Result<void> add_process(int pid) = 0;
  /// File that a child writes its own pid to between fork and exec ("" when nothing is enforced).
  [[nodiscard]] virtual std::string tasks_file() const = 0;
  /// Throttled seconds so far (from cpu.stat), for reports.
  [[nodiscard]] virtual double throttled_seconds() const = 0;
};

/// Errors: FailedPrecondition (no cpu controller, no permission), with how to get it.
[[nodiscard]] Result<std::unique_ptr<CpuShare>> make_cpu_share(
    const std::string& name, double cores, const std::filesystem::path& cgroup_root = "/sys/fs/cgroup");

}  // namespace coxswain::cluster
