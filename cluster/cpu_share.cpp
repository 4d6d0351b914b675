#include "cluster/cpu_share.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "cluster/cgroup.h"
#include "common/clock.h"
#include "common/log.h"

namespace coxswain::cluster {
namespace {

namespace fs = std::filesystem;

// The kernel takes no quota below a millisecond.
constexpr std::int64_t kMinQuotaMicroseconds = 1000;
// The shorter, the less two devices wait for each other's turns. A kernel of 250 ticks a second ends a turn at a tick:
// four milliseconds are one, and less than that is not kept to.
constexpr std::int64_t kShortPeriodMicroseconds = 4000, kPeriodMicroseconds = 10000;

/// The shortest period whose quota the kernel takes.
std::int64_t period_of(double cores) {
  const double wanted = std::ceil(static_cast<double>(kMinQuotaMicroseconds) / cores);
  return static_cast<std::int64_t>(
      std::clamp(wanted, static_cast<double>(kShortPeriodMicroseconds), static_cast<double>(kPeriodMicroseconds)));
}
constexpr const char* kPrefix = "coxswain-";
constexpr double kExitSeconds = 2;

/// One write call, as the kernel's files want it. 0 or errno. (A cgroup tree refuses to create files; a test's does
/// not.)
int write_file(const fs::path& path, const std::string& text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return errno;
  const ssize_t written = ::write(file, text.data(), text.size());
  const int error = written == static_cast<ssize_t>(text.size()) ? 0 : (written < 0 ? errno : EIO);
  ::close(file);
  return error;
}

Error cannot(std::string message, const fs::path& path, int error) {
  return Error{
      ErrorCode::FailedPrecondition,
      std::move(message),
      path.string(),
      "",
      std::strerror(error),
      "run as root, or in a cgroup delegated to you (systemd-run --user --scope -p Delegate=yes), or leave out @CORES"};
}

/// Waits for a process's end without polling; false when time ran out.
bool wait_for_exit(int pid, Deadline deadline) {
  const int handle = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (handle < 0) return errno == ESRCH;
  pollfd entry{handle, POLLIN, 0};
  int ready = 0;
  do {
    const double left = deadline.remaining(steady_clock()).value;
    ready = ::poll(&entry, 1, static_cast<int>(std::ceil(left * 1000)));
  } while (ready < 0 && errno == EINTR);
  ::close(handle);
  return ready > 0;
}

class CgroupShare final : public CpuShare {
 public:
  CgroupShare(fs::path folder, int version) : folder_(std::move(folder)), version_(version) {}
  CgroupShare(const CgroupShare&) = delete;
  CgroupShare& operator=(const CgroupShare&) = delete;

  ~CgroupShare() override {
    const Deadline deadline = Deadline::after(steady_clock(), Seconds(kExitSeconds));
    while (::rmdir(folder_.c_str()) != 0 && errno == EBUSY && wait_for_members(deadline)) {}
    std::error_code ignored;
    if (fs::exists(folder_, ignored)) log(LogLevel::Warn, "cpu share", "cgroup is left behind: " + folder_.string());
  }

  Result<void> add_process(int pid) override {
    if (const int error = write_file(tasks_file(), std::to_string(pid)); error != 0)
      return cannot("cannot move a process into its CPU share", tasks_file(), error);
    return {};
  }

  std::string tasks_file() const override { return (folder_ / "cgroup.procs").string(); }

  double throttled_seconds() const override {
    std::istringstream lines(read_small_file(folder_ / "cpu.stat"));
    std::string key;
    double value = 0;
    while (lines >> key >> value) {
      if (key == "throttled_time") return value * 1e-9;
      if (key == "throttled_usec") return value * 1e-6;
    }
    return 0;
  }

  /// 0 or errno.
  int limit(std::int64_t quota, std::int64_t period_us) const {
    const std::string period = std::to_string(period_us);
    if (version_ == 2) return write_file(folder_ / "cpu.max", std::to_string(quota) + " " + period);
    const int error = write_file(folder_ / "cpu.cfs_period_us", period);
    return error != 0 ? error : write_file(folder_ / "cpu.cfs_quota_us", std::to_string(quota));
  }

 private:
  /// Until one process that is still inside has ended; false when there is none or time ran out.
  bool wait_for_members(Deadline deadline) const {
    std::istringstream members(read_small_file(tasks_file()));
    int pid = 0;
    return (members >> pid) && wait_for_exit(pid, deadline);
  }

  fs::path folder_;
  int version_;
};

/// Empty folders of agents that were killed: a folder with a living member cannot be removed.
void remove_stale(const fs::path& parent) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(kPrefix, 0) != 0) continue;
    const int pid = std::atoi(name.c_str() + std::strlen(kPrefix));
    if (pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH) ::rmdir(entry.path().c_str());
  }
}

std::string folder_name(const std::string& name) {
  static std::atomic<int> counter{0};
  std::string text = kPrefix + std::to_string(::getpid()) + "-" + std::to_string(counter++) + "-";
  for (const char c : name) text += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return text;
}

/// Folders in which a group may be made, best first. In version 2 a folder with processes in it can give no controller
/// to children (the root can), so a parent may have to do.
std::vector<fs::path> candidates(const CgroupController& controller) {
  if (controller.version == 1) return {controller.own};
  return controller.chain();
}

}  // namespace

Result<std::unique_ptr<CpuShare>> make_cpu_share(const std::string& name, double cores, const fs::path& cgroup_root) {
  const std::int64_t period = period_of(cores);
  const auto quota = static_cast<std::int64_t>(std::llround(cores * static_cast<double>(period)));
  if (!(cores > 0) || quota < kMinQuotaMicroseconds) {
    return Error{ErrorCode::InvalidArgument,
                 "CPU share is too small to be enforced",
                 "",
                 "at least 0.1 cores",
                 std::to_string(cores),
                 ""};
  }
  const auto controller = find_controller("cpu", cgroup_root, read_small_file("/proc/self/cgroup"));
  if (!controller) {
    return Error{ErrorCode::FailedPrecondition,
                 "CPU share cannot be enforced: no cgroup with a cpu controller",
                 cgroup_root.string(),
                 "cpu.cfs_quota_us (version 1) or cpu in cgroup.controllers (version 2)",
                 "neither",
                 "mount it, or leave out @CORES"};
  }
  Error first_failure{ErrorCode::FailedPrecondition, "", "", "", "", ""};
  for (const fs::path& parent : candidates(*controller)) {
    if (controller->version == 2)
      (void)write_file(parent / "cgroup.subtree_control", "+cpu");  // it may be given already
    remove_stale(parent);
    const fs::path folder = parent / folder_name(name);
    int error = ::mkdir(folder.c_str(), 0755) == 0 ? 0 : errno;
    if (error == 0) {
      auto share = std::make_unique<CgroupShare>(folder, controller->version);
      error = share->limit(quota, period);
      if (error == 0) return std::unique_ptr<CpuShare>(std::move(share));
    }
    if (first_failure.message.empty()) first_failure = cannot("CPU share cannot be enforced", folder, error);
  }
  return first_failure;
}

}  // namespace coxswain::cluster
