#include "launcher/control/devices.h"

#include <sched.h>

#include <algorithm>
#include <cmath>

#include "common/log.h"

namespace coxswain::launcher {
namespace {

using cluster::DeviceKind;

// Room for the process itself, its libraries and what others on the machine take.
constexpr double kMemoryFraction = 0.9;

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

/// The part of `cpus` that device `index` of `count` equal ones takes; small shares share a CPU.
std::vector<int> part_of(const std::vector<int>& cpus, int index, int count) {
  const int total = static_cast<int>(cpus.size());
  if (total == 0) return {};
  const int first = index * total / count;
  const int end = std::max((index + 1) * total / count, first + 1);
  return {cpus.begin() + first, cpus.begin() + std::min(end, total)};
}

Result<void> enforce(LocalDevice& device, int index, int count, const std::string& share_name) {
  auto share = cluster::make_cpu_share(share_name + "-" + std::to_string(index), device.request.cores);
  if (share) {
    device.share = std::move(*share);
    device.enforced = "cgroup";
    return {};
  }
  if (device.request.explicit_share) return share.error();
  device.cpus = part_of(allowed_cpus(), index, count);
  device.enforced = "affinity";
  log(LogLevel::Info, "agent",
      "no cgroup for CPU shares (" + share.error().message + "); device " + std::to_string(index) +
          " is held by affinity");
  return {};
}

}  // namespace

Result<std::vector<LocalDevice>> prepare_devices(const std::string& spec, int processes,
                                                 const cluster::Inventory& inventory, const std::string& share_name) {
  std::string text = spec;
  if (text.empty())
    text = processes > 0 ? std::to_string(processes) + (inventory.cuda.empty() ? "xcpu" : "xcuda") : "auto";
  COX_TRY(
      const auto requests,
      cluster::parse_device_spec(text, inventory.cores, static_cast<int>(inventory.cuda.size()), inventory.numa_nodes));
  double total_cores = 0;
  for (const auto& request : requests) total_cores += request.kind == DeviceKind::Cpu ? request.cores : 0;

  std::vector<LocalDevice> devices;
  int next_cuda = 0;
  for (int i = 0; i < static_cast<int>(requests.size()); ++i) {
    LocalDevice device;
    device.request = requests[static_cast<std::size_t>(i)];
    if (device.request.kind == DeviceKind::Cuda) {
      if (device.request.index < 0) device.request.index = next_cuda;
      next_cuda = device.request.index + 1;
      const auto& card = inventory.cuda.at(static_cast<std::size_t>(device.request.index));
      device.name = card.name;
      device.memory = Bytes(static_cast<std::int64_t>(kMemoryFraction * static_cast<double>(card.memory.value)));
    } else {
      device.name = inventory.cpu_model;
      const double share = device.request.cores / total_cores;
      device.memory =
          Bytes(static_cast<std::int64_t>(kMemoryFraction * share * static_cast<double>(inventory.memory.value)));
      // More threads than the share lets run would be stopped in turn, fewer would leave some of it unused.
      device.threads = std::max(1, static_cast<int>(std::ceil(device.request.cores - 0.01)));
      const bool whole_machine = requests.size() == 1 && device.request.cores > inventory.cores - 0.01;
      if (!whole_machine) COX_TRY_VOID(enforce(device, i, static_cast<int>(requests.size()), share_name));
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

}  // namespace coxswain::launcher
