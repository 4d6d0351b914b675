#include "launcher/control/exit_cause.h"

#include <csignal>
#include <fstream>
#include <sstream>
#include <vector>

namespace coxswain::launcher {
namespace {

/// The number after `word` at the start of a line of `file`; -1 without one.
std::int64_t counter_in(const std::filesystem::path& file, const std::string& word) {
  std::ifstream in(file);
  std::string name;
  std::int64_t value = 0;
  while (in >> name >> value) {
    if (name == word) return value;
  }
  return -1;
}

/// This process's cgroup below the root for `controller` ("" = version 2).
std::string own_cgroup(const std::string& controller) {
  std::ifstream in("/proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const auto first = line.find(':');
    const auto second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    if (line.substr(first + 1, second - first - 1) == controller) return line.substr(second + 1);
  }
  return "";
}

}  // namespace

std::string signal_name(int number) {
  switch (number) {
    case SIGHUP: return "SIGHUP";
    case SIGINT: return "SIGINT";
    case SIGQUIT: return "SIGQUIT";
    case SIGILL: return "SIGILL";
    case SIGABRT: return "SIGABRT";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGKILL: return "SIGKILL";
    case SIGSEGV: return "SIGSEGV";
    case SIGPIPE: return "SIGPIPE";
    case SIGTERM: return "SIGTERM";
    case SIGUSR1: return "SIGUSR1";
    default: return "";
  }
}

std::string describe_exit(const ProcessExit& exit, bool out_of_memory) {
  if (!exit.signalled) return "exit " + std::to_string(exit.number);
  if (out_of_memory && exit.number == SIGKILL) return "out of memory";
  return "signal " + std::to_string(exit.number);
}

std::int64_t count_oom_kills() {
  const std::filesystem::path root = "/sys/fs/cgroup";
  const std::int64_t version2 = counter_in(root / ("." + own_cgroup("")) / "memory.events", "oom_kill");
  if (version2 >= 0) return version2;
  const std::int64_t version1 =
      counter_in(root / "memory" / ("." + own_cgroup("memory")) / "memory.oom_control", "oom_kill");
  if (version1 >= 0) return version1;
  return std::max<std::int64_t>(counter_in("/proc/vmstat", "oom_kill"), 0);
}

std::string last_lines(const std::filesystem::path& file, int num_lines) {
  constexpr std::streamoff kBytes = 8192;
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) return "";
  const std::streamoff size = in.tellg();
  in.seekg(size > kBytes ? size - kBytes : 0);
  std::vector<std::string> lines;
  std::string line;
  while (std::getline(in, line)) {
    for (char& c : line) {
      if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    }
    lines.push_back(line);
  }
  std::ostringstream text;
  const std::size_t first =
      lines.size() > static_cast<std::size_t>(num_lines) ? lines.size() - static_cast<std::size_t>(num_lines) : 0;
  for (std::size_t i = first; i < lines.size(); ++i) text << (i > first ? "\n" : "") << lines[i];
  return text.str();
}

}  // namespace coxswain::launcher
