#include "cluster/cgroup.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

namespace coxswain::cluster {
namespace {

namespace fs = std::filesystem;

std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc{}) return std::nullopt;
  return value;
}

bool lists(std::string_view names, std::string_view name, char separator) {
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(separator), names.size());
    if (names.substr(0, end) == name) return true;
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  return false;
}

/// Path of this process in the hierarchy that holds `controller` (version 1) or in the unified one (empty controller).
std::string own_path(std::string_view proc_cgroup, std::string_view controller) {
  std::istringstream lines{std::string(proc_cgroup)};
  std::string line;
  while (std::getline(lines, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? names.empty() : lists(names, controller, ',')) return line.substr(second + 1);
  }
  return "/";
}

/// The folder of `path` below `mount`; the mount itself when a namespace hides it.
fs::path below(const fs::path& mount, const std::string& path) {
  const fs::path folder = mount / fs::path(path).relative_path();
  std::error_code ignored;
  return !fs::path(path).relative_path().empty() && fs::is_directory(folder, ignored) ? folder : mount;
}

bool has_controller(const fs::path& mount, std::string_view controller) {
  std::string names = read_small_file(mount / "cgroup.controllers");
  while (!names.empty() && (names.back() == '\n' || names.back() == ' ')) names.pop_back();
  return lists(names, controller, ' ');
}

}  // namespace

std::string read_small_file(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return file ? text.str() : std::string();
}

std::vector<fs::path> CgroupController::chain() const {
  std::vector<fs::path> folders;
  for (fs::path folder = own; folder != mount && folder.has_relative_path(); folder = folder.parent_path())
    folders.push_back(folder);
  folders.push_back(mount);
  return folders;
}

std::optional<CgroupController> find_controller(std::string_view controller, const fs::path& root,
                                                std::string_view proc_cgroup) {
  // A hybrid machine has both layouts; a controller is in one of them, and version 1 has a folder of its name.
  std::error_code ignored;
  const fs::path mount = root / controller;
  const char* mark = controller == "cpu" ? "cpu.cfs_quota_us" : "memory.limit_in_bytes";
  if (fs::exists(mount / mark, ignored))
    return CgroupController{1, mount, below(mount, own_path(proc_cgroup, controller))};
  for (const fs::path& unified : {root, root / "unified"}) {
    if (has_controller(unified, controller))
      return CgroupController{2, unified, below(unified, own_path(proc_cgroup, ""))};
  }
  return std::nullopt;
}

double cgroup_cores(const fs::path& root, std::string_view proc_cgroup) {
  double cores = std::numeric_limits<double>::infinity();
  const auto controller = find_controller("cpu", root, proc_cgroup);
  if (!controller) return cores;
  for (const fs::path& folder : controller->chain()) {
    std::optional<std::int64_t> quota, period;
    if (controller->version == 1) {
      quota = parse_integer(read_small_file(folder / "cpu.cfs_quota_us"));
      period = parse_integer(read_small_file(folder / "cpu.cfs_period_us"));
    } else {
      const std::string limit = read_small_file(folder / "cpu.max");  // "50000 100000", "max 100000"
      const std::size_t blank = limit.find(' ');
      if (blank == std::string::npos) continue;
      quota = parse_integer(limit);
      period = parse_integer(std::string_view(limit).substr(blank + 1));
    }
    if (quota && period && *quota > 0 && *period > 0)
      cores = std::min(cores, static_cast<double>(*quota) / static_cast<double>(*period));
  }
  return cores;
}

std::optional<Bytes> cgroup_memory(const fs::path& root, std::string_view proc_cgroup) {
  const auto controller = find_controller("memory", root, proc_cgroup);
  if (!controller) return std::nullopt;
  std::optional<Bytes> limit;
  for (const fs::path& folder : controller->chain()) {
    const auto value =
        parse_integer(read_small_file(folder / (controller->version == 1 ? "memory.limit_in_bytes" : "memory.max")));
    // Version 1 writes "no limit" as the largest multiple of the page size.
    constexpr std::int64_t kNoLimit = std::int64_t{1} << 62;
    if (value && *value > 0 && *value < kNoLimit && (!limit || Bytes(*value) < *limit)) limit = Bytes(*value);
  }
  return limit;
}

}  // namespace coxswain::cluster
