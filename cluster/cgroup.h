#pragma once
// Private to cluster/: where this process stands in the cgroup tree (version 1 and 2) and what limits it there.
// Root and /proc/self/cgroup's text are parameters so that tests can use a fake tree. Threads: pure apart from files.
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/units.h"

namespace coxswain::cluster {

/// One controller's tree as this process sees it.
struct CgroupController {
  int version = 1;
  std::filesystem::path mount;  // root of the tree
  std::filesystem::path own;    // folder of this process; `mount` when its path is not visible (a container's view)

  /// `own`, its parents, up to `mount`.
  [[nodiscard]] std::vector<std::filesystem::path> chain() const;
};

/// Where `controller` ("cpu", "memory") is managed; nothing when it is not mounted.
[[nodiscard]] std::optional<CgroupController> find_controller(std::string_view controller,
                                                              const std::filesystem::path& root,
                                                              std::string_view proc_cgroup);

/// Cores by the tightest quota above this process; infinity without one.
[[nodiscard]] double cgroup_cores(const std::filesystem::path& root, std::string_view proc_cgroup);
/// The tightest memory limit above this process.
[[nodiscard]] std::optional<Bytes> cgroup_memory(const std::filesystem::path& root, std::string_view proc_cgroup);

/// Whole content of a small file; empty when it cannot be read.
[[nodiscard]] std::string read_small_file(const std::filesystem::path& path);

}  // namespace coxswain::cluster
