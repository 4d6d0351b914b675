#pragma once
// Why a process ended, in the words of events.jsonl, and what it said last. Called by the agent. Threads: any.
#include <cstdint>
#include <filesystem>
#include <string>

#include "launcher/control/spawner.h"

namespace coxswain::launcher {

/// "exit 3", "signal 9", or "out of memory" when the kernel killed it for that.
[[nodiscard]] std::string describe_exit(const ProcessExit& exit, bool out_of_memory);
/// "SIGKILL"; "" for an unknown number.
[[nodiscard]] std::string signal_name(int number);

/// Kills of the out-of-memory killer so far, in this process's cgroup (version 1 or 2), else on the machine. A rise
/// across the death of a worker by SIGKILL names the cause.
[[nodiscard]] std::int64_t count_oom_kills();

/// The last `num_lines` lines of a text file (at most its last 8 KiB), without control characters.
[[nodiscard]] std::string last_lines(const std::filesystem::path& file, int num_lines);

}  // namespace coxswain::launcher
