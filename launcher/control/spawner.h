#pragma once
// The one place that starts processes. Children die with the thread that spawned them (parent-death signal), so spawn
// is called from a thread that lives as long as the process. Secrets travel by an inherited descriptor, never by
// argument. Seam: process_spawner (real) and a fake in tests. Called by the agent (workers) and run_train (coordinator,
// agent).
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace coxswain::launcher {

struct SpawnRequest {
  std::filesystem::path program;
  std::vector<std::string> arguments;              // without the program's name
  std::map<std::string, std::string> environment;  // on top of this process's
  std::optional<std::string> stdin_text;           // what the child reads on stdin; absent: /dev/null
  std::optional<std::string> key;                  // readable once at descriptor kKeyDescriptor
  std::filesystem::path stdout_file, stderr_file;  // must not exist yet; empty: inherited
  int stdout_descriptor = -1;                      // instead of a file
  std::string tasks_file;                          // cgroup file into which the child writes its pid before exec
  std::vector<int> cpus;                           // affinity; empty: as the parent
};
inline constexpr int kKeyDescriptor = 3;

struct ProcessExit {
  int pid = 0;
  bool signalled = false;
  int number = 0;  // exit code or signal
};

class Spawner {
 public:
  virtual ~Spawner() = default;
  /// The pid of the started child, leader of a process group of its own.
  /// Errors: FailedPrecondition (no such program, log file exists, cgroup refuses).
  [[nodiscard]] virtual Result<int> spawn(const SpawnRequest& request) = 0;
  /// Sends `signal` to a child and its process group; nothing when it has ended.
  virtual void send_signal(int pid, int signal) = 0;
  /// Processor time (clock ticks) of a process that a signal stopped (SIGSTOP, a terminal); nothing of one that goes
  /// on, or that a debugger holds.
  [[nodiscard]] virtual std::optional<std::int64_t> stopped_at(int pid) const = 0;
};

/// `on_exit` runs on the spawner's own thread, once for each child. The destructor kills what still lives and waits for
/// it.
[[nodiscard]] std::unique_ptr<Spawner> make_process_spawner(std::function<void(const ProcessExit&)> on_exit);

}  // namespace coxswain::launcher
