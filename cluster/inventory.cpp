#include "cluster/inventory.h"

#include <hwloc.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "cluster/cgroup.h"
#include "cluster/nvml.h"

namespace coxswain::cluster {
namespace {

struct FreeTopology {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
struct FreeBitmap {
  void operator()(hwloc_bitmap_s* bitmap) const { hwloc_bitmap_free(bitmap); }
};

struct Processors {
  int count = 1;
  int numa_nodes = 1;
  std::string model;
};

Processors read_processors() {
  Processors found;
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return found;
  const std::unique_ptr<hwloc_topology, FreeTopology> topology(raw);
  if (hwloc_topology_load(raw) != 0) return found;

  // The affinity of this process inside what its cpuset allows.
  const std::unique_ptr<hwloc_bitmap_s, FreeBitmap> usable(hwloc_bitmap_alloc());
  if (hwloc_get_cpubind(raw, usable.get(), HWLOC_CPUBIND_PROCESS) != 0) hwloc_bitmap_fill(usable.get());
  hwloc_bitmap_and(usable.get(), usable.get(), hwloc_topology_get_allowed_cpuset(raw));
  found.count = std::max(hwloc_bitmap_weight(usable.get()), 1);

  int nodes = 0;
  for (hwloc_obj_t node = nullptr; (node = hwloc_get_next_obj_by_type(raw, HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
    if (node->cpuset != nullptr && hwloc_bitmap_intersects(node->cpuset, usable.get())) ++nodes;
  }
  found.numa_nodes = std::max(nodes, 1);

  for (const hwloc_obj_t object : {hwloc_get_obj_by_type(raw, HWLOC_OBJ_PACKAGE, 0), hwloc_get_root_obj(raw)}) {
    const char* model = object == nullptr ? nullptr : hwloc_obj_get_info_by_name(object, "CPUModel");
    if (model != nullptr) {
      found.model = model;
      break;
    }
  }
  return found;
}

Bytes available_memory() {
  std::istringstream lines(read_small_file("/proc/meminfo"));
  std::string key;
  std::int64_t kibibytes = 0;
  std::string unit;
  while (lines >> key >> kibibytes) {
    if (key == "MemAvailable:") return Bytes(kibibytes * 1024);
    std::getline(lines, unit);
  }
  return Bytes(0);
}

}  // namespace

Inventory take_inventory() {
  const std::filesystem::path cgroup_root = "/sys/fs/cgroup";
  const std::string own_cgroup = read_small_file("/proc/self/cgroup");
  Inventory inventory;
  const Processors processors = read_processors();
  inventory.cores = std::min(static_cast<double>(processors.count), cgroup_cores(cgroup_root, own_cgroup));
  inventory.numa_nodes = processors.numa_nodes;
  inventory.cpu_model = processors.model;
  inventory.memory = available_memory();
  if (const auto limit = cgroup_memory(cgroup_root, own_cgroup)) inventory.memory = std::min(inventory.memory, *limit);
  NvmlDevices cuda = read_nvml();
  inventory.cuda = std::move(cuda.devices);
  inventory.cuda_note = std::move(cuda.note);
  return inventory;
}

}  // namespace coxswain::cluster
